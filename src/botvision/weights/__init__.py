"""Weights files, backbone initialization and the Hugging Face Hub."""
