"""What a step cost and gave, for displays and records."""

import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StepFigures:
    """A step of a run, as it is shown.

    Attributes:
        step: Steps done.
        losses: Losses by name, the mean over all processes.
        learning_rate: Of the step.
        images_per_second: Over the run so far, all processes together.
        waiting: Share of the time that this process waited for data, 0..1.
        memory: Largest memory of the accelerator so far in GiB; None on the CPU.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    images_per_second: float
    waiting: float
    memory: float | None


class Stopwatch:
    """Time of steps and of waiting for data; evaluations and saving do not count."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._waited = 0.0
        self._images = 0
        self._last = time.perf_counter()

    def start(self) -> None:
        """The time from here on counts."""
        self._last = time.perf_counter()

    def got_data(self) -> None:
        """What passed since the last call was waiting for data."""
        self._waited += self._pass()

    def stepped(self, images: int) -> None:
        """What passed since the last call was a step with that many images."""
        self._pass()
        self._images += images

    @property
    def images_per_second(self) -> float:
        """Images a second of the time that counts."""
        return self._images / self._seconds if self._seconds else 0.0

    @property
    def waiting(self) -> float:
        """Share of the time that counts in which there was no data, 0..1."""
        return self._waited / self._seconds if self._seconds else 0.0

    def _pass(self) -> float:
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self._seconds += passed
        return passed


def peak_memory(device: torch.device) -> float | None:
    """Largest memory in GiB that tensors took on a GPU so far; None on other devices."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 2**30
