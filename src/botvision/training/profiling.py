"""A trace of a few steps, to see where the time goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

_WAIT, _WARM_UP, _STEPS = 2, 1, 3


@contextmanager
def profiling(folder: Path, *, wanted: bool) -> Iterator["Profiler"]:
    """Trace steps 4 to 6 of the block into ``profile.json``, which Perfetto and Chrome show.

    Args:
        folder: Where the trace goes.
        wanted: False does nothing.
    """
    if not wanted:
        yield Profiler(None)
        return
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(
        activities=activities,
        schedule=schedule(wait=_WAIT, warmup=_WARM_UP, active=_STEPS, repeat=1),
        on_trace_ready=lambda done: done.export_chrome_trace(str(folder / "profile.json")),
        profile_memory=True,
    ) as running:
        yield Profiler(running)


class Profiler:
    """Told of every step.

    Args:
        running: torch's profiler; None does nothing.
    """

    def __init__(self, running: profile | None) -> None:
        self._running = running

    def step(self) -> None:
        """A step is done."""
        if self._running is not None:
            self._running.step()
