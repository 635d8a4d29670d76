"""Stand-ins for a task and a display that measure the training loop from within."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from botvision.benchmark.measuring import wait_for
from botvision.seeds import derived_seed
from botvision.tasks.task import ProgressCallback, Trainable
from botvision.training.log import Silent
from botvision.training.preparation import prepare
from botvision.training.sampling import BatchPlan
from botvision.training.settings import TrainingSettings
from botvision.training.speed import StepFigures

_HELD = 4  # batches in memory


class Spent(NamedTuple):
    """Elapsed seconds: wall-clock time, and processor time of this process over all cores."""

    wall: float
    processor: float

    def since(self, start: "Spent") -> "Spent":
        """Return the time since an earlier ``now``."""
        return Spent(self.wall - start.wall, self.processor - start.processor)


def now() -> Spent:
    """Return both clocks."""
    return Spent(time.perf_counter(), time.process_time())


class Clock(Silent):
    """A display that keeps the figures of the loop's steps.

    Args:
        total: Number of steps of the run.
        progress: Called with the current step.
    """

    def __init__(self, total: int, progress: Callable[[str], None]) -> None:
        self._total, self._progress = total, progress
        self._figures: list[StepFigures] = []

    def step(self, figures: StepFigures) -> None:
        """Keep the figures of a step."""
        self._figures.append(figures)
        self._progress(f"step {figures.step} of {self._total}")

    def since(self, step: int) -> tuple[float, float]:
        """Return the waiting fraction and images per second after a step."""
        first, last = self._figures[step - 1], self._figures[-1]
        # The figures are totals since the start; times are in units of a step's images.
        start, end = (each.step / each.images_per_second for each in (first, last))
        waited = last.waiting * end - first.waiting * start
        return waited / (end - start), (last.step - first.step) / (end - start)


class WithoutEvaluation:
    """A task that trains like another one, without evaluation and drawing.

    Args:
        task: The other task.
    """

    def __init__(self, task: Trainable) -> None:
        self.task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def evaluate(self, _model: Any, _progress: ProgressCallback) -> dict[str, Any]:
        """Return zeros."""
        return dict.fromkeys(self.task.metric_names, 0.0)

    def results(self) -> list[dict[str, Any]]:
        """Return no results."""
        return []

    def draw_data(self, folder: Path) -> None:
        """Draw nothing."""

    def draw_evaluation(self, folder: Path, epoch: int, *, best: bool) -> None:
        """Draw nothing."""


class _Keys(Dataset[tuple[int, int]]):
    """A data set whose items are their keys."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key


class BatchesInMemory(WithoutEvaluation):
    """A task with a few batches in memory, which are used in turn.

    Args:
        task: Task that makes the batches.
        plan: Plan that says how a step is split.
        steps: Number of steps of an epoch.

    Attributes:
        given: Batches of the current step; its reader clears the list.
    """

    def __init__(self, task: Trainable, plan: BatchPlan, steps: int) -> None:
        super().__init__(task)
        self._keys = _Keys(plan.batch_size * steps)
        data: Any = task.train_data()
        self._batches = []
        for first in range(0, _HELD * plan.micro_batch_size, plan.micro_batch_size):
            indices = range(first, first + plan.micro_batch_size)
            items = [data[(0, index % len(data))] for index in indices]
            self._batches.append(task.collate(items))
        self.given: list[Any] = []
        self._count = 0

    def train_data(self) -> Dataset[Any]:
        """Return the keys of an epoch."""
        return self._keys

    def collate(self, _keys: Any) -> Any:
        """Return the next batch."""
        self.given.append(self._batches[self._count % len(self._batches)])
        self._count += 1
        return self.given[-1]


class Turns(Clock):
    """A display that takes a bare step after each step of the loop, on the same batches.

    A bare step is forward, backward and optimizer. It uses the loop's learning rate and random
    draws, since the sampled regions, and with them the work, depend on both.

    Args:
        total: Number of steps of the run.
        progress: Called with the current step.
        batches: Task that the loop trains.
        other: A second instance of the task, whose model takes the bare steps.
        settings: Training settings of the recipe.
        accelerator: Accelerator with the device.

    Attributes:
        loop: Times of the loop's steps.
        bare: Times of the bare steps.
    """

    def __init__(
        self,
        total: int,
        progress: Callable[[str], None],
        *,
        batches: BatchesInMemory,
        other: Trainable,
        settings: TrainingSettings,
        accelerator: Accelerator,
    ) -> None:
        super().__init__(total, progress)
        self.loop: list[Spent] = []
        self.bare: list[Spent] = []
        self._batches, self._other, self._seed = batches, other, settings.seed
        self._device = accelerator.device
        plain = settings.model_copy(update={"ema_decay": None})
        self._bare = prepare(other, plain, accelerator)
        self._start = now()

    def note(self, _text: str) -> None:
        """Start the clock: the loop is about to begin."""
        self._start = now()

    def step(self, figures: StepFigures) -> None:
        """Take the step that the loop has taken again, bare."""
        wait_for(self._device)
        self.loop.append(now().since(self._start))
        super().step(figures)
        start = now()
        self._bare_step(figures)
        wait_for(self._device)
        self.bare.append(now().since(start))
        self._batches.given.clear()
        self._start = now()

    def _bare_step(self, figures: StepFigures) -> None:
        model, optimizer, parts = self._bare.model, self._bare.optimizer, self._batches.given
        for group in optimizer.param_groups:
            group["lr"] = figures.learning_rate * group["lr_scale"]
        for part, batch in enumerate(parts):
            torch.manual_seed(derived_seed(self._seed, figures.step - 1, part))
            losses = self._other.losses(model, batch, self._device)
            (torch.stack(list(losses.values())).sum() / len(parts)).backward()
        optimizer.step()
        optimizer.zero_grad()
