"""Training: the loop, sampling, optimizer, state, log and run folders."""
