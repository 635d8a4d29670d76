"""Image classification: data through timm, losses and metrics."""
