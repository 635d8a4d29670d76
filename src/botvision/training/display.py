"""What the training loop tells whoever shows a run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from botvision.tasks.task import ProgressCallback
from botvision.training.speed import StepFigures


class Display(Protocol):
    """Shows a run while it goes on."""

    def note(self, text: str) -> None:
        """A line worth reading once."""
        ...

    def step(self, figures: StepFigures) -> None:
        """A step is done."""
        ...

    def evaluating(self) -> AbstractContextManager[ProgressCallback]:
        """An evaluation goes on inside the block."""
        ...

    def evaluated(self, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """An evaluation is done."""
        ...


ShowRun = Callable[[int, int, tuple[str, ...]], AbstractContextManager[Display]]
"""Called with the steps done, their total and the names of the metrics to show first."""
