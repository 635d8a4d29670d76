"""The display that shows a run, and the check of its trackers."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from botvision.errors import BotvisionError
from botvision.tasks.task import ProgressCallback
from botvision.training.settings import TrainingSettings
from botvision.training.speed import StepFigures

_INSTALLED_BY = {"tensorboard": "pip install botvision[track]", "wandb": "pip install wandb"}


def check_trackers(settings: TrainingSettings) -> None:
    """Check that the packages of the trackers are installed: Accelerate ignores missing ones.

    Raises:
        BotvisionError: If a package is missing; the message names the command that installs it.
    """
    for name in settings.trackers:
        if importlib.util.find_spec(name) is None:
            raise BotvisionError(
                f"training.trackers: {name} is not installed; {_INSTALLED_BY[name]}"
            )


class Display(Protocol):
    """Display of a run while it lasts."""

    def note(self, text: str) -> None:
        """Show a line, such as where the weights come from."""

    def step(self, figures: StepFigures) -> None:
        """Show a finished step."""

    def evaluating(self) -> AbstractContextManager[ProgressCallback]:
        """Show the progress of an evaluation inside the block."""
        ...

    def evaluated(self, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """Show the metrics of a finished evaluation."""


ShowRun = Callable[[int, int, tuple[str, ...]], AbstractContextManager[Display]]
"""Called with the number of steps done, their total and the names of the main metrics."""


class Silent:
    """A display that shows nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def step(self, figures: StepFigures) -> None:
        """Show nothing."""

    @contextmanager
    def evaluating(self) -> Iterator[ProgressCallback]:
        """Show nothing inside the block."""
        yield lambda _done, _total: None

    def evaluated(self, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """Show nothing."""
