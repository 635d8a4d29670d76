"""What the training loop costs: waiting for data, and time beyond the model's own steps."""

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

WARM_UP = 3  # steps; the loop draws their batches
_READ = 16  # items whose reading is timed


@dataclass(frozen=True)
class Cost:
    """What the loop adds to bare steps, as a share of them.

    Attributes:
        median: Over pairs of a step of the loop and the bare one after it.
        low: A quarter of the pairs are below.
        high: A quarter of the pairs are above.
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
    """What ``botvision benchmark training`` found.

    Attributes:
        machine: That it ran on.
        recipe: What was trained.
        steps: Counted ones of each measurement, after ``WARM_UP`` others.
        images: Of a step.
        waiting: Share of the time that the loop waited for data, 0..1.
        images_per_second: Of the loop with its data, when others share the machine with it.
        read: Seconds to read and augment an image in one process.
        loop: A step of the loop, its batches in memory.
        bare: Forward, backward and optimizer alone, on the same batches in turns with the loop.
        cost: Of the loop over bare steps.
        processor_cost: The same by processor time of this process, which other programs on the
            machine do not lengthen; None where a GPU does the work.
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
    recipe: Recipe, *, steps: int, progress: Callable[[str], None]
) -> TrainingReport:
    """Measure the loop as it trains a recipe, on one process.

    Evaluations, saving and the images of the first batches do not count.

    Args:
        recipe: What to train; ``data.folder`` must be set.
        steps: To count in each measurement, at least 2.
        progress: Is told what is going on.

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
    """Share of the time spent waiting and images a second, once the first steps are done."""
    clock = Clock(total, progress)
    _train(WithoutEvaluation(build_task(recipe)), recipe, total, clock)
    return clock.since(WARM_UP)


def _turns(recipe: Recipe, total: int, progress: Callable[[str], None]) -> Turns:
    """The loop and bare steps in turns."""
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
    """Run the loop in a folder that goes away."""

    @contextmanager
    def show(*_: Any) -> Iterator[Clock]:
        yield display

    # As many epochs as it takes; nothing is evaluated or saved but at their ends.
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
