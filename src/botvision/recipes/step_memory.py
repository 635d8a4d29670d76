"""What a training step takes, measured in a process of its own, and what there is."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn

from botvision.processes import processes_here
from botvision.recipes.running import build_task
from botvision.recipes.schema import Recipe
from botvision.tasks.task import Task
from botvision.training.preparation import prepare

_LOOKED_AT = 16  # items, of which the largest fills the batches


@dataclass(frozen=True)
class StepCost:
    """What a step of some images took.

    Attributes:
        memory: Peak in bytes: of the whole process on the CPU, of what torch holds on a GPU.
        seconds: Time of the step.
    """

    memory: int
    seconds: float


Answer = StepCost | str | None
"""Of a step: its cost, why it cannot be taken, or None where memory does not suffice."""


@contextmanager
def measured_steps(recipe: Recipe, device: torch.device) -> Iterator[Callable[[int], Answer]]:
    """Give a function that takes a step with so many images and says what it cost.

    The steps are taken in a process of their own: on the CPU, too large a step ends with the
    process. Ask for growing numbers of images, as the peak is that of all steps so far.

    Args:
        recipe: What to train.
        device: Where.
    """
    # Not "spawn", whose processes start with this one's peak; see benchmark/measuring.py.
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    process = context.Process(
        target=_answer, args=(there, recipe, device, torch.get_num_threads()), daemon=True
    )
    process.start()
    there.close()

    def step(images: int) -> Answer:
        try:
            here.send(images)
            answer: Answer = here.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            process.join()
            killed = process.exitcode == -signal.SIGKILL
            return None if killed else f"its process ended with status {process.exitcode}"
        return answer

    try:
        with here:
            yield step
    finally:
        process.terminate()
        process.join()


def free_memory(device: torch.device) -> int:
    """Bytes that a training process may take: of the GPU, or of this machine's or container's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    free = psutil.virtual_memory().available
    for folder, limit_name, usage_name in _control_groups(Path("/proc/self/cgroup")):
        limit, usage = _number(folder / limit_name), _number(folder / usage_name)
        if limit is not None and usage is not None:
            free = min(free, limit - usage + _reclaimable(folder))
    return max(0, free) // processes_here()  # they share it


def _control_groups(
    listing: Path, root: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[Path, str, str]]:
    """Folders of this process's control groups that exist, with the names of limit and usage.

    A container may see its own group as the root whatever the listing says.
    """
    lines = listing.read_text().splitlines() if listing.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        innermost = top / path.lstrip("/")
        for folder in (innermost, *innermost.parents):
            if folder.is_relative_to(top):
                yield folder, *names


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, as for "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _reclaimable(folder: Path) -> int:
    """Bytes of a group's file cache that give way when memory is short."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    stat = dict(line.split() for line in lines)
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


class _OneProcess:
    """What ``prepare`` asks of an Accelerator, for a step that shares nothing."""

    num_processes = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare_model(self, model: nn.Module) -> nn.Module:
        return model


def _answer(connection: Any, recipe: Recipe, device: torch.device, threads: int) -> None:
    """Take the steps that are asked for, in the process made for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends this process
    for name in [name for name in os.environ if name.endswith("RANK") or "WORLD_SIZE" in name]:
        del os.environ[name]  # torchrun's: nothing here may wait for another process
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    steps: _Steps | None = None
    while True:
        try:
            images = connection.recv()
        except EOFError:
            return
        try:
            steps = steps or _Steps(recipe, device)
            answer: Answer = steps.take(images)
        except Exception as error:  # whatever it is, training would meet it as well
            lines = str(error).strip().splitlines() or [type(error).__name__]
            short = isinstance(error, MemoryError) or should_reduce_batch_size(error)
            answer = None if short else lines[0]
        connection.send(answer)


class _Steps:
    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._device = device
        self._task: Task = build_task(recipe)
        data: Any = self._task.train_data()
        items = [data[(0, index)] for index in range(min(_LOOKED_AT, len(data)))]
        self._item = max(items, key=_size)
        # Alone in its process, as sharding and DistributedDataParallel need others.
        accelerator = cast(Accelerator, _OneProcess(device))
        self._prepared = prepare(self._task, recipe.training, accelerator)
        for group in self._prepared.optimizer.param_groups:
            group["lr"] = 0.0  # the same item again and again would drive the weights anywhere

    def take(self, images: int) -> StepCost:
        prepared = self._prepared
        batch = self._task.collate([self._item] * images)
        start = time.perf_counter()
        self._pass(batch)
        prepared.optimizer.step()
        if prepared.average is not None:
            prepared.average.update(prepared.plain, step=0)
        # The second one finds momentum and, as where batches are accumulated, gradients.
        self._pass(batch)
        prepared.optimizer.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            memory = torch.cuda.max_memory_reserved(self._device)
        else:
            memory = _peak_of_this_process()
        return StepCost(memory, time.perf_counter() - start)

    def _pass(self, batch: Any) -> None:
        losses = self._task.losses(self._prepared.model, batch, self._device)
        torch.stack(list(losses.values())).sum().backward()


def _peak_of_this_process() -> int:
    import resource  # not on Windows
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _size(item: Any) -> int:
    """Bytes of all tensors in an item."""
    if isinstance(item, torch.Tensor):
        return item.numel() * item.element_size()
    if isinstance(item, dict):
        return _size(list(item.values()))
    return sum(map(_size, item)) if isinstance(item, list | tuple) else 0
