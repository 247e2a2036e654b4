"""Other logs, driven like ours: for comparison in one run. Extra of the bench, needed by nothing else."""
