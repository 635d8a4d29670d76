"""Overhead of the training loop: waiting for data, and time beyond the model's own steps."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from accelerate import Accelerator

from botvision.benchmark.machine import Machine, describe_machine
from botvision.benchmark.measuring import Timing, wait_for
from botvision.processes import processes
from botvision.recipes.running import build_task
from botvision.recipes.schema import Recipe
from botvision.seeds import derived_seed
from botvision.tasks.task import ProgressCallback, Trainable
from botvision.training.log import Silent
from botvision.training.loop import train
from botvision.training.preparation import prepare
from botvision.training.run_folder import RunFolder
from botvision.training.sampling import BatchPlan
from botvision.training.speed import StepFigures

WARM_UP = 3  # steps, not counted
_READ = 16  # items whose reading is timed
_HELD = 4  # batches in memory


@dataclass(frozen=True)
class Cost:
    """Overhead of the loop as a fraction of bare steps.

    Attributes:
        median: Median over pairs of a step of the loop and the bare step after it.
        low: Lower quartile.
        high: Upper quartile.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, loop: list[float], bare: list[float]) -> Self:
        """Compare steps pair by pair."""
        added = [a / b - 1 for a, b in zip(loop, bare, strict=True)]
        low, median, high = statistics.quantiles(added, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class TrainingReport:
    """Result of ``botvision benchmark training``.

    Attributes:
        machine: Machine that it ran on.
        recipe: Recipe that was trained.
        steps: Number of counted steps of each measurement, after ``WARM_UP`` others.
        images: Batch size.
        waiting: Fraction of the time that the loop waited for data, 0 to 1.
        images_per_second: Speed of the loop with its data.
        read: Time to read and augment an image in one process.
        loop: Time of a step of the loop with batches in memory.
        bare: Time of forward, backward and optimizer alone, in turns with the loop.
        cost: Overhead of the loop over bare steps.
        processor_cost: The same in processor time of this process, which other programs do not
            lengthen; None on a GPU.
    """

    machine: Machine
    recipe: dict[str, Any]
    steps: int
    images: int
    waiting: float
    images_per_second: float
    read: Timing
    loop: Timing
    bare: Timing
    cost: Cost
    processor_cost: Cost | None


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


class BatchesInMemory(WithoutEvaluation):
    """A task with a few batches in memory, which are used in turn; its data are their own keys.

    Args:
        task: Task that makes the batches.
        plan: Plan that says how a step is split.
        steps: Number of steps of an epoch.

    Attributes:
        given: Batches of the current step; its reader clears the list.
    """

    def __init__(self, task: Trainable, plan: BatchPlan, steps: int) -> None:
        super().__init__(task)
        self._length, size = plan.batch_size * steps, plan.micro_batch_size
        data: Any = task.train_data()
        items = (data[(0, index % len(data))] for index in range(_HELD * size))
        self._batches = [task.collate([next(items) for _ in range(size)]) for _ in range(_HELD)]
        self.given: list[Any] = []
        self._count = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key

    def train_data(self) -> Any:
        """Return the keys of an epoch."""
        return self

    def collate(self, _keys: Any) -> Any:
        """Return the next batch."""
        self.given.append(self._batches[self._count % _HELD])
        self._count += 1
        return self.given[-1]


class Turns(Clock):
    """A display that takes a bare step after each step of the loop, on the same batches.

    A bare step is forward, backward and optimizer. It uses the loop's learning rate and random
    draws, since the sampled regions, and with them the work, depend on both.

    Args:
        recipe: Recipe that the loop trains.
        total: Number of steps of the run.
        progress: Called with the current step.

    Attributes:
        batches: Task for the loop to train.
        loop: Wall-clock and processor seconds of each step of the loop.
        bare: Wall-clock and processor seconds of each bare step.
    """

    def __init__(self, recipe: Recipe, total: int, progress: Callable[[str], None]) -> None:
        super().__init__(total, progress)
        self.batches = BatchesInMemory(build_task(recipe), _plan(recipe), total)
        self.loop: list[Any] = []
        self.bare: list[Any] = []
        self._seed = recipe.training.seed
        accelerator = Accelerator(mixed_precision="no")
        self._device, self._other = accelerator.device, build_task(recipe)
        plain = recipe.training.model_copy(update={"ema_decay": None})
        self._bare = prepare(self._other, plain, accelerator)
        self._start = _now()

    def note(self, _text: str) -> None:
        """Start the clock: the loop is about to begin."""
        self._start = _now()

    def step(self, figures: StepFigures) -> None:
        """Take the step that the loop has taken again, bare."""
        wait_for(self._device)
        self.loop.append(_now() - self._start)
        super().step(figures)
        start = _now()
        self._bare_step(figures)
        wait_for(self._device)
        self.bare.append(_now() - start)
        self.batches.given.clear()
        self._start = _now()

    def _bare_step(self, figures: StepFigures) -> None:
        model, optimizer, parts = self._bare.model, self._bare.optimizer, self.batches.given
        for group in optimizer.param_groups:
            group["lr"] = figures.learning_rate * group["lr_scale"]
        for part, batch in enumerate(parts):
            torch.manual_seed(derived_seed(self._seed, figures.step - 1, part))
            losses = self._other.losses(model, batch, self._device)
            (torch.stack(list(losses.values())).sum() / len(parts)).backward()
        optimizer.step()
        optimizer.zero_grad()


def benchmark_training(
    recipe: Recipe, *, steps: int, progress: Callable[[str], None] = lambda _: None
) -> TrainingReport:
    """Measure the loop in one process while it trains a recipe.

    Evaluations, saving and sample images are not included.

    Args:
        recipe: Recipe to train; ``data.folder`` must be set.
        steps: Number of counted steps in each measurement, at least 2.
        progress: Called with the current step.

    Raises:
        BotvisionError: If the recipe or its data cannot be used.
    """
    device = processes().device.type
    machine = describe_machine(device)
    total = WARM_UP + steps
    progress("reading")
    read = _time_reading(build_task(recipe))
    progress("the loop with its data")
    waiting, speed = _waiting(recipe, total, progress)
    progress("the loop and bare steps in turns")
    training = recipe.training.model_copy(update={"num_workers": 0})
    alone = recipe.model_copy(update={"training": training})
    turns = Turns(alone, total, progress)
    _train(turns.batches, alone, total, turns)
    loop, loop_processor = np.array(turns.loop[WARM_UP:]).T.tolist()
    bare, bare_processor = np.array(turns.bare[WARM_UP:]).T.tolist()
    return TrainingReport(
        machine=machine,
        recipe=recipe.model_dump(mode="json"),
        steps=steps,
        images=_plan(recipe).batch_size,
        waiting=waiting,
        images_per_second=speed,
        read=read,
        loop=Timing.of(loop),
        bare=Timing.of(bare),
        cost=Cost.of(loop, bare),
        processor_cost=Cost.of(loop_processor, bare_processor) if device == "cpu" else None,
    )


def _time_reading(task: Trainable) -> Timing:
    data: Any = task.train_data()
    times = []
    for index in range(1 + min(_READ, len(data))):
        start = time.perf_counter()
        data[(0, index % len(data))]
        times.append(time.perf_counter() - start)
    return Timing.of(times[1:] if len(times) > 2 else times)


def _waiting(recipe: Recipe, total: int, progress: Callable[[str], None]) -> tuple[float, float]:
    """Return the waiting fraction and images per second after the first steps."""
    clock = Clock(total, progress)
    _train(WithoutEvaluation(build_task(recipe)), recipe, total, clock)
    return clock.since(WARM_UP)


def _train(task: Any, recipe: Recipe, total: int, display: Clock) -> None:
    """Run the loop in a temporary run folder."""

    @contextmanager
    def show(*_: Any) -> Iterator[Clock]:
        yield display

    # Enough epochs; evaluation and saving come after the last step only.
    changes: dict[str, Any] = {"max_steps": total, "epochs": total}
    changes |= {"evaluate_every": total + 1, "save_every": total + 1}
    changes |= {"trackers": (), "best_metric": None, "patience": None}
    settings = recipe.training.model_copy(update=changes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder.create(Path(temporary) / "run", recipe.model_dump(mode="json"))
        train(cast(Trainable, task), settings, folder, display=show)


def _plan(recipe: Recipe) -> BatchPlan:
    return BatchPlan.of(recipe.training, processes=1)


def _now() -> Any:
    """Return wall-clock time and the processor time of this process over all cores, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])
