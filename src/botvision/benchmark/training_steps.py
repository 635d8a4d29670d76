"""Stand-ins for a task and a display, which let the training loop be measured from within."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from botvision.benchmark.measuring import wait_for
from botvision.seeds import derived_seed
from botvision.tasks.task import ProgressCallback, Trainable
from botvision.training.preparation import prepare
from botvision.training.sampling import BatchPlan
from botvision.training.settings import TrainingSettings
from botvision.training.speed import StepFigures

_HELD = 4  # batches in memory


@dataclass(frozen=True)
class Spent:
    """Time that passed.

    Attributes:
        wall: Seconds on the clock.
        processor: Seconds of this process on any core, whoever else has the machine.
    """

    wall: float
    processor: float

    @classmethod
    def so_far(cls) -> Self:
        """Since some moment in the past."""
        return cls(time.perf_counter(), time.process_time())

    @classmethod
    def since(cls, start: "Spent") -> Self:
        """Since an earlier ``so_far``."""
        now = cls.so_far()
        return cls(now.wall - start.wall, now.processor - start.processor)


class Clock:
    """A display that reads the loop's own stopwatch.

    Args:
        total: Steps of the run.
        progress: Is told what is going on.
    """

    def __init__(self, total: int, progress: Callable[[str], None]) -> None:
        self._total, self._progress = total, progress
        self._figures: list[StepFigures] = []

    def note(self, _text: str) -> None:
        """The loop's notes are of no interest here."""

    def step(self, figures: StepFigures) -> None:
        """Keep a step's figures."""
        self._figures.append(figures)
        self._progress(f"step {figures.step} of {self._total}")

    @contextmanager
    def evaluating(self) -> Iterator[ProgressCallback]:
        """There is nothing to show."""
        yield lambda _done, _total: None

    def evaluated(self, _epoch: int, _metrics: dict[str, Any], *, best: bool) -> None:
        """There is nothing to show."""

    def since(self, step: int) -> tuple[float, float]:
        """Share of waiting and images a second after a step, from the sums over all steps."""
        first, last = self._figures[step - 1], self._figures[-1]
        # Times in units of a step's images.
        start, end = (each.step / each.images_per_second for each in (first, last))
        waited = last.waiting * end - first.waiting * start
        return waited / (end - start), (last.step - first.step) / (end - start)


class WithoutEvaluation:
    """A task that trains as another does, and takes no time over anything else.

    Args:
        task: The other.
    """

    def __init__(self, task: Trainable) -> None:
        self.task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def evaluate(self, _model: Any, _progress: ProgressCallback) -> dict[str, Any]:
        """Figures that nobody looks at."""
        return dict.fromkeys(self.task.metric_names, 0.0)

    def results(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def draw_data(self, folder: Path) -> None:
        """Draw nothing."""

    def draw_evaluation(self, folder: Path, epoch: int, *, best: bool) -> None:
        """Draw nothing."""


class _Keys(Dataset[tuple[int, int]]):
    """Asked for by a key, gives the key."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key


class BatchesInMemory(WithoutEvaluation):
    """A task whose batches are read beforehand and come again and again.

    Args:
        task: Whose they are.
        plan: How a step is split.
        steps: Of an epoch.

    Attributes:
        given: Batches asked for; who uses them clears the list.
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
        """Keys for an epoch."""
        return self._keys

    def collate(self, _keys: Any) -> Any:
        """The next batch."""
        self.given.append(self._batches[self._count % len(self._batches)])
        self._count += 1
        return self.given[-1]


class Turns(Clock):
    """A display that takes a bare step after each of the loop's, on the same batches.

    A bare step is forward, backward and optimizer, with the loop's learning rate and random draws:
    regions depend on both, and with them the work.

    Args:
        total: Steps of the run.
        progress: Is told what is going on.
        batches: What the loop is trained on.
        other: The same task again, whose model takes the bare steps.
        settings: The recipe's.
        accelerator: Has the device.

    Attributes:
        loop: What the loop's steps took.
        bare: What the bare ones took.
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
        self._start = Spent.so_far()

    def note(self, _text: str) -> None:
        """The loop is about to begin."""
        self._start = Spent.so_far()

    def step(self, figures: StepFigures) -> None:
        """The loop has taken a step: take the same one, bare."""
        wait_for(self._device)
        self.loop.append(Spent.since(self._start))
        super().step(figures)
        start = Spent.so_far()
        self._bare_step(figures)
        wait_for(self._device)
        self.bare.append(Spent.since(start))
        self._batches.given.clear()
        self._start = Spent.so_far()

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
