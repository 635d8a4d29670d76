"""The processes of this run, as torchrun started them."""

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Rank, size and device: a GPU where there is one, else the CPU; one process by default."""
    accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    return PartialState(cpu=not accelerator)
