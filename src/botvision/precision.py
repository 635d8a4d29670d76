"""The precision that a recipe asks for."""

import torch
from torch import Tensor


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision of a recipe: bfloat16 where it says so, else nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def widened(tensor: Tensor) -> Tensor:
    """Return a half-precision tensor as float32, any other as it is."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
