"""Speed and memory of training steps, and a trace of a few of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule


@dataclass(frozen=True)
class StepFigures:
    """Figures of one training step, for displays and logs.

    Attributes:
        step: Number of steps done.
        losses: Losses by name, averaged over all processes.
        learning_rate: Learning rate of the step.
        images_per_second: Training speed of all processes together, averaged over the run so far.
        waiting: Fraction of the time that this process waited for data, in 0..1.
        memory: Peak memory of the GPU so far in GiB; None on the CPU.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    images_per_second: float
    waiting: float
    memory: float | None


class Stopwatch:
    """Time of training steps and of waiting for data, without evaluations and saving."""

    def __init__(self) -> None:
        self._seconds = self._waited = 0.0
        self._images = 0
        self._last = time.perf_counter()

    def start(self) -> None:
        """Start counting time."""
        self._last = time.perf_counter()

    def got_data(self) -> None:
        """Count the time since the last call as waiting for data."""
        self._waited += self._pass()

    def stepped(self, images: int) -> tuple[float, float]:
        """Count the time since the last call as a step with this many images.

        Returns:
            Images per second of the counted time, and the fraction of it that was spent waiting.
        """
        self._pass()
        self._images += images
        return self._images / self._seconds, self._waited / self._seconds

    def _pass(self) -> float:
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self._seconds += passed
        return passed


@contextmanager
def profiling(folder: Path, *, wanted: bool) -> Iterator[Callable[[], object]]:
    """Write a trace of steps 4 to 6 of the block to ``profile.json``, for Perfetto or Chrome.

    Args:
        folder: Folder to write to.
        wanted: Whether to trace at all.

    Yields:
        A function to call after each step.
    """
    if not wanted:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(
        activities=activities,
        schedule=schedule(wait=2, warmup=1, active=3, repeat=1),
        on_trace_ready=lambda done: done.export_chrome_trace(str(folder / "profile.json")),
        profile_memory=True,
    ) as running:
        yield running.step
