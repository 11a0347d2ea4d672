"""The loop, the run grid, the run store and the executors."""
