"""One file a strategy, and nothing else."""
