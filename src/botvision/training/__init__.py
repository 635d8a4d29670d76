"""Training: the loop, optimisation, run folders and resuming."""
