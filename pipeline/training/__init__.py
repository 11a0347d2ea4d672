"""The loop, the run grid, the run store; who works it off, here and on a cluster."""
