"""Tasks: everything the program knows about each kind of model."""
