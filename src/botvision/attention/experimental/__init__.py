"""Implementations that have not been timed on a GPU and are never chosen automatically."""
