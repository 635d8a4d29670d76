"""The processes of this run, as torchrun started them."""

import os

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Rank, size and device: a GPU where there is one, else the CPU; one process by default."""
    accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    return PartialState(cpu=not accelerator)


def processes_here() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
