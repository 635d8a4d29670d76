"""Overhead of the training loop: waiting for data, and time beyond the model's own steps."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from accelerate import Accelerator

from botvision.benchmark.machine import Machine, describe_machine
from botvision.benchmark.measuring import Timing
from botvision.benchmark.training_steps import BatchesInMemory, Clock, Turns, WithoutEvaluation
from botvision.processes import processes
from botvision.recipes.running import build_task
from botvision.recipes.schema import Recipe
from botvision.tasks.task import Trainable
from botvision.training.loop import train
from botvision.training.run_folder import RunFolder
from botvision.training.sampling import BatchPlan

WARM_UP = 3  # steps, not counted
_READ = 16  # items whose reading is timed


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
    machine = describe_machine(processes().device.type)
    progress("reading")
    read = _time_reading(build_task(recipe))
    progress("the loop with its data")
    waiting, speed = _waiting(recipe, WARM_UP + steps, progress)
    progress("the loop and bare steps in turns")
    turns = _turns(recipe, WARM_UP + steps, progress)
    loop, bare = turns.loop[WARM_UP:], turns.bare[WARM_UP:]
    walls, processor = (
        [[getattr(step, kind) for step in steps_of] for steps_of in (loop, bare)]
        for kind in ("wall", "processor")
    )
    on_cpu = processes().device.type == "cpu"
    return TrainingReport(
        machine=machine,
        recipe=recipe.model_dump(mode="json"),
        steps=steps,
        images=_plan(recipe).batch_size,
        waiting=waiting,
        images_per_second=speed,
        read=read,
        loop=Timing.of(walls[0]),
        bare=Timing.of(walls[1]),
        cost=Cost.of(*walls),
        processor_cost=Cost.of(*processor) if on_cpu else None,
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


def _turns(recipe: Recipe, total: int, progress: Callable[[str], None]) -> Turns:
    """Time the loop and bare steps in turns."""
    alone = recipe.training.model_copy(update={"num_workers": 0})
    batches = BatchesInMemory(build_task(recipe), _plan(recipe), total)
    turns = Turns(
        total,
        progress,
        batches=batches,
        other=build_task(recipe),
        settings=alone,
        accelerator=Accelerator(mixed_precision="no"),
    )
    _train(batches, recipe.model_copy(update={"training": alone}), total, turns)
    return turns


def _train(task: Any, recipe: Recipe, total: int, display: Clock) -> None:
    """Run the loop in a temporary run folder."""

    @contextmanager
    def show(*_: Any) -> Iterator[Clock]:
        yield display

    # Enough epochs; evaluation and saving come after the last step only.
    changes = {"max_steps": total, "epochs": total, "evaluate_every": total + 1}
    changes["save_every"] = total + 1
    settings = recipe.training.model_copy(
        update={**changes, "trackers": (), "best_metric": None, "patience": None}
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder.create(Path(temporary) / "run", recipe.model_dump(mode="json"))
        train(cast(Trainable, task), settings, folder, display=show)


def _plan(recipe: Recipe) -> BatchPlan:
    return BatchPlan.of(recipe.training, processes=1)
