"""The precision that a recipe asks for."""

import torch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision of a recipe: bfloat16 where it says so, else nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
