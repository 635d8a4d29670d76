"""``--auto-batch``: the largest micro batch that fits into memory, by steps that are tried."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache

from botvision.errors import BotvisionError
from botvision.processes import (
    call_in_new_process,
    first_line,
    out_of_memory,
    peak_memory,
    processes,
    processes_here,
)
from botvision.recipes.running import build_task
from botvision.recipes.schema import Recipe
from botvision.training.preparation import prepare

_USED_FRACTION = {"cuda": 0.9, "cpu": 0.8}  # a CPU's process is killed where a GPU's gets an error
_ITEMS = 16  # the largest of so many fills the batches
_GIB = 2**30


@dataclass(frozen=True)
class _Found:
    """Result of one process.

    Attributes:
        images: Size of the micro batch; 0 if not even the smallest fits.
        memory: Bytes of its step, measured or estimated.
        failure: Why steps could not be taken, other than for memory.
    """

    images: int = 0
    memory: int = 0
    failure: str | None = None


def with_largest_batch(recipe: Recipe, *, note: Callable[[str], None] | None = None) -> Recipe:
    """Return the recipe with the largest ``training.micro_batch_size`` that fits into memory.

    The batch stays the same: only divisors of a process's part of it are tried, and gradients are
    accumulated over the rest. On a GPU the sizes are tried from the largest down until a step does
    not run out of memory. On the CPU, where such a step would end other programs as well, the two
    smallest sizes are measured and the others estimated from them.

    Every process must call it; all get the smallest size that any of them found.

    Args:
        recipe: Recipe to train.
        note: Called with one line about what was chosen.

    Raises:
        BotvisionError: If not even the smallest size fits, or a step cannot be taken.
    """
    training = recipe.training
    if training.sharded:
        raise BotvisionError(
            "auto batch: expected a model that fits into one process, got training.sharded; "
            "set training.micro_batch_size by hand"
        )
    here = processes()
    part = math.ceil(training.batch_size / here.num_processes)
    sizes = [size for size in range(1, part + 1) if part % size == 0]
    room, found = 0, None
    if here.device.type != "cpu" or here.is_local_main_process:  # a CPU's processes share memory
        room = int(_USED_FRACTION.get(here.device.type, 0.8) * free_memory(here.device))
        try:
            found = call_in_new_process(_search, recipe, here.device, sizes, room)
        except MemoryError:
            found = _Found()
        except RuntimeError as error:
            found = _Found(failure=str(error))
    everyone: list[_Found] = [each for each in gather_object([found]) if each is not None]
    fewest = min(everyone, key=lambda each: each.images)
    if fewest.failure is not None:
        raise BotvisionError(f"auto batch: no step could be taken: {fewest.failure}")
    if fewest.images == 0:
        raise BotvisionError(
            f"auto batch: not even a micro batch of {sizes[0]} fits into {room / _GIB:.1f} GiB of "
            "free memory; lower model.image_size, set training.gradient_checkpointing=true or "
            "training.precision=bfloat16, or free memory"
        )
    if note is not None:
        note(
            f"auto batch: training.micro_batch_size={fewest.images} of {part}; a step takes "
            f"{fewest.memory / _GIB:.2f} of {room / _GIB:.2f} GiB"
        )
    changed = training.model_copy(update={"micro_batch_size": fewest.images})
    return recipe.model_copy(update={"training": changed})


def _search(recipe: Recipe, device: torch.device, sizes: Sequence[int], room: int) -> _Found:
    """Find the largest of the sizes that fits into ``room`` bytes, in a process for it alone."""
    if device.type != "cuda":
        return _largest_estimated(_Steps(recipe, device), sizes, room)
    torch.cuda.set_device(device)
    return _largest_tried(_Steps(recipe, device), sizes, room)


def _largest_tried(steps: "_Steps", sizes: Sequence[int], room: int) -> _Found:
    failure = None
    for size in reversed(sizes):
        try:
            memory = steps.take(size)
        except Exception as error:  # such as BatchNorm's, which may want more than one image
            failure = None if out_of_memory(error) else first_line(error)
        else:
            if memory <= room:
                return _Found(size, memory)
    return _Found(failure=failure)


def _largest_estimated(steps: "_Steps", sizes: Sequence[int], room: int) -> _Found:
    found, failure, peak = _Found(), None, steps.peak
    # A step below the peak of building the model does not tell what an image takes.
    points = [(0, steps.held)]
    for size in sizes:
        expected = peak
        if len(points) > 1:
            (low, start), (high, end) = points[-2:]
            expected = end + math.ceil((end - start) / (high - low) * (size - high))
        if expected <= room and len(points) < 3:
            try:
                expected = steps.take(size)
            except Exception as error:
                if out_of_memory(error):
                    break
                failure = first_line(error)
                continue
            if expected > peak:
                points.append((size, expected))
            failure, peak = None, expected
        if expected > room:
            break
        found = _Found(size, expected)
    return found if found.images else _Found(failure=failure)


class _Steps:
    """Training steps with a batch of copies of the largest of some items.

    Attributes:
        held: Bytes that the process holds before the first step.
        peak: Most bytes that it has held until then.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._device = device
        self._task = build_task(recipe)
        data: Any = self._task.train_data()
        self._item = max((data[(0, i)] for i in range(min(_ITEMS, len(data)))), key=_bytes_of)
        # Not an Accelerator, whose device would be that of the first process.
        alone: Any = SimpleNamespace(
            num_processes=1, device=device, prepare_model=lambda model: model
        )
        self._prepared = prepare(self._task, recipe.training, alone)
        for group in self._prepared.optimizer.param_groups:
            group["lr"] = 0.0  # the same item again and again would drive the weights anywhere
        self.held, self.peak = psutil.Process().memory_info().rss, peak_memory()

    def take(self, images: int) -> int:
        """Take a step and return its peak memory in bytes."""
        prepared = self._prepared
        prepared.optimizer.zero_grad()
        clear_device_cache(garbage_collection=True)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        batch = self._task.collate([self._item] * images)
        # The second pass finds momentum and, as where batches are accumulated, gradients.
        for _ in range(2):
            losses = self._task.losses(prepared.model, batch, self._device)
            torch.stack(list(losses.values())).sum().backward()
            if prepared.average is not None:
                prepared.average.update(prepared.plain, step=0)
            prepared.optimizer.step()
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device)
        return peak_memory()


def _bytes_of(item: Any) -> int:
    if isinstance(item, torch.Tensor):
        return item.numel() * item.element_size()
    if isinstance(item, dict):
        item = list(item.values())
    return sum(map(_bytes_of, item)) if isinstance(item, list | tuple) else 0


def free_memory(device: torch.device) -> int:
    """Return the bytes that a process may take of the GPU, or of the machine or container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = min([psutil.virtual_memory().available, *_free_in_groups()])
    return max(0, free) // processes_here()


def _free_in_groups(
    listing: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Bytes left in each control group of this process that has a limit (versions 1 and 2)."""
    for line in listing.read_text().splitlines() if listing.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, limit, usage = root, "memory.max", "memory.current"
        if controllers:
            top, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        group = top / path.lstrip("/")
        # A container may see its own group as the root whatever the listing says.
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # not there, or "max"
                lines = (folder / "memory.stat").read_text().splitlines()
                stat = dict(each.split() for each in lines)
                cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
                most, used = (int((folder / name).read_text()) for name in (limit, usage))
                yield most - used + cache
