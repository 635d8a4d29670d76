"""Training: the loop, optimization, run folders and resuming."""
