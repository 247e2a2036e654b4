"""The coordinator: who lives, who owns which channel."""
