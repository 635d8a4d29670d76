"""Benchmarks of the attention layer, of backbones and of training, on the user's machine."""
