"""The only place for clocks, randomness, sleep and task spawning."""
