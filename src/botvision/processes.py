"""The processes of this run: those that torchrun started, and those that they start."""

import os
import signal

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Rank, size and device: a GPU where there is one, else the CPU; one process by default."""
    accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    return PartialState(cpu=not accelerator)


def processes_here() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def ignore_interruptions(_worker: int = 0) -> None:
    """Go on in a process that reads data, until whoever started it ends it.

    The terminal's Ctrl-C reaches all processes, and a run that it asks to stop still needs these.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
