"""Real servers on loopback for tests: started, killed and restarted; each with a directory of its own."""
