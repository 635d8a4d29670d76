"""``--auto-batch``: the most images at once that fit into memory, measured."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelerate.utils import gather_object

from botvision.errors import BotvisionError
from botvision.processes import processes
from botvision.recipes.schema import Recipe
from botvision.recipes.step_memory import Answer, StepCost, free_memory, measured_steps

_USED_SHARE = {"cuda": 0.9, "cpu": 0.8}  # a CPU's process is killed where a GPU's gets an error
_PATIENCE = 20.0  # seconds for one step; larger ones are estimated
_GIB = 2**30


@dataclass(frozen=True)
class _Found:
    """What a process found.

    Attributes:
        images: At once; 0 where not even the smallest number fits.
        costs: Of the steps taken, by their images.
        failure: Why steps could not be taken, for want of anything but memory.
    """

    images: int
    costs: dict[int, StepCost]
    failure: str | None = None


def with_largest_batch(recipe: Recipe, *, note: Callable[[str], None]) -> Recipe:
    """A recipe with the largest ``training.micro_batch_size`` that fits into memory.

    The batch stays the same: only numbers that divide a process's share of it are tried, and what
    does not fit at once is accumulated. Every process must call it; all get the smallest number
    that any of them found.

    Args:
        recipe: What to train.
        note: Gets a line with what was measured and chosen.

    Raises:
        BotvisionError: If not even the smallest number fits, or a step cannot be taken.
    """
    training = recipe.training
    if training.sharded:
        raise BotvisionError(
            "--auto-batch: expected a model that fits into one process, got training.sharded; "
            "set training.micro_batch_size by hand"
        )
    here = processes()
    share = math.ceil(training.batch_size / here.num_processes)
    sizes = [size for size in range(1, share + 1) if share % size == 0]
    on_cpu = here.device.type == "cpu"
    room = 0
    found = None
    if not on_cpu or here.is_local_main_process:  # the CPU's processes share their memory
        room = int(_USED_SHARE.get(here.device.type, 0.8) * free_memory(here.device))
        with measured_steps(recipe, here.device) as take:
            found = _search(sizes, room, take, patience=_PATIENCE if on_cpu else math.inf)
    everyone = [each for each in gather_object([found]) if each is not None]
    for each in everyone:
        if each.failure is not None and not each.images:
            raise BotvisionError(f"--auto-batch: no step could be taken: {each.failure}")
    images = min(each.images for each in everyone)
    if images == 0:
        raise BotvisionError(
            f"--auto-batch: not even {sizes[0]} image at once fits into the memory that is free "
            f"(room {room / _GIB:.1f} GiB here); lower model.image_size, set "
            "training.gradient_checkpointing=true or training.precision=bfloat16, or free memory"
        )
    fewest = next(each for each in everyone if each.images == images)
    note(_describe(images, share, fewest.costs, room))
    changed = training.model_copy(update={"micro_batch_size": images})
    return recipe.model_copy(update={"training": changed})


def _search(
    sizes: Sequence[int], room: int, take: Callable[[int], Answer], *, patience: float
) -> _Found:
    """The largest size that fits, by steps of growing size.

    Args:
        sizes: To choose from, growing.
        room: Bytes that a step may take.
        take: Takes a step.
        patience: Seconds; a step that would take longer is not taken, nor are larger ones. With
            none, neither is a step that would not fit if memory grew in a line.
    """
    costs: dict[int, StepCost] = {}
    failure = None
    for size in sizes:
        if len(costs) >= 2 and patience < math.inf:
            if _line(costs, size, "memory") > room:
                break
            if _line(costs, size, "seconds") > patience:
                fitting = [s for s in sizes if _line(costs, s, "memory") <= room]
                return _Found(max(fitting), costs)
        answer = take(size)
        if isinstance(answer, str):  # BatchNorm or mixup may want more images than one
            failure = answer
            continue
        if answer is None or answer.memory > room:
            failure = None
            break
        costs[size] = answer
    return _Found(max(costs, default=0), costs, failure)


def _line(costs: dict[int, StepCost], size: int, what: str) -> float:
    """Memory or seconds of a step of some size, on the line through the last two measured."""
    (low, first), (high, second) = sorted(costs.items())[-2:]
    start, end = getattr(first, what), getattr(second, what)
    slope = max(0.0, (end - start) / (high - low))
    return float(end + slope * (size - high))


def _describe(images: int, share: int, costs: dict[int, StepCost], room: int) -> str:
    shown = ", ".join(f"{size}: {cost.memory / _GIB:.2f}" for size, cost in costs.items())
    taken = "measured" if images in costs else "estimated from the two largest"
    return (
        f"--auto-batch: training.micro_batch_size={images} of {share} ({taken}); GiB by images at "
        f"once {shown}; room {room / _GIB:.2f}"
    )
