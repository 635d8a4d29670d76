"""Readers of annotation formats: one ``read`` per format."""
