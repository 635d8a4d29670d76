"""How batches are split, and their order: a function of the seed and the step alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import torch

from botvision.seeds import derived_seed
from botvision.training.settings import TrainingSettings

LANES = 8
"""Parts of an epoch that are read side by side. Up to this many machines, if their number divides
it and they do not accumulate batches, read different shards."""

WINDOW = 8
"""Number of shards over which the items of a lane are shuffled."""


@dataclass(frozen=True)
class BatchPlan:
    """How the images of an optimizer step are split over processes and over time.

    Attributes:
        micro_batch_size: Number of images a process takes at a time.
        processes: Number of processes.
        accumulation: Number of micro-batches of each process in an optimizer step.
        lr_factor: Factor of the recipe's learning rate.
    """

    micro_batch_size: int
    processes: int
    accumulation: int
    lr_factor: float

    @classmethod
    def of(cls, settings: TrainingSettings, processes: int) -> "BatchPlan":
        """Return the plan nearest to the recipe's batch on this many processes."""
        per_process = math.ceil(settings.batch_size / processes)
        micro = min(settings.micro_batch_size or per_process, per_process)
        accumulation = max(1, round(settings.batch_size / (micro * processes)))
        total = micro * processes * accumulation
        ratio = total / (settings.base_batch_size or settings.batch_size)
        # SGD's steps add up (Goyal et al. 2017); AdamW's are normalized by the gradient's noise.
        factor = ratio if settings.optimizer == "sgd" else math.sqrt(ratio)
        return cls(micro, processes, accumulation, factor)

    @property
    def batch_size(self) -> int:
        """Number of images of an optimizer step."""
        return self.micro_batch_size * self.processes * self.accumulation

    def describe(self, settings: TrainingSettings) -> str:
        """Return the plan in one line, with what became of the recipe's batch and learning rate."""
        at_once = "image" if self.micro_batch_size == 1 else "images"
        processes = "process" if self.processes == 1 else "processes"
        line = (
            f"batch of {self.batch_size}: {self.micro_batch_size} {at_once} at once x "
            f"{self.processes} {processes} x {self.accumulation} accumulated"
        )
        if self.batch_size != settings.batch_size:
            line += f" (the recipe's {settings.batch_size} cannot be split so)"
        if self.lr_factor != 1:
            nominal = settings.base_batch_size or settings.batch_size
            how = "in proportion" if settings.optimizer == "sgd" else "with the square root"
            line += (
                f"; learning rate {settings.learning_rate * self.lr_factor:.4g}, scaled {how} "
                f"from {settings.learning_rate:g} for a batch of {nominal}"
            )
        return line


@dataclass
class StepBatches:
    """Batches of (epoch, index) keys for one process, from a step to the end of the run.

    Each epoch is a permutation drawn from (seed, epoch), padded with its first items to whole
    batches; over shards see ``shard_order``. A step holds the same images whether or not the run
    was interrupted before it, and however many processes take part.

    Attributes:
        length: Number of items of the data set.
        plan: How a step is split; there are ``plan.accumulation`` batches per step.
        epochs: Number of epochs of the run.
        seed: Random seed of the order.
        max_steps: Number of steps after which the run ends, if that comes first.
        first_step: Step to begin with; those before it are skipped without being read.
        process: Index of this process.
        shard_lengths: Number of items of each shard, if the data set is in shards.
    """

    length: int
    plan: BatchPlan
    epochs: int
    _: KW_ONLY
    seed: int
    max_steps: int | None = None
    first_step: int = 0
    process: int = 0
    shard_lengths: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.steps_per_epoch = -(-self.length // self.plan.batch_size)
        self.total_steps = self.steps_per_epoch * self.epochs
        if self.max_steps is not None:
            self.total_steps = min(self.total_steps, self.max_steps)

    def __len__(self) -> int:
        return max(0, self.total_steps - self.first_step) * self.plan.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: list[int] = []
        for step in range(self.first_step, self.total_steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            if not order or within == 0:
                order = self._order(epoch)
            first = within * self.plan.batch_size
            for part in range(self.plan.accumulation):
                # Numbered over all processes: n parts of one process and one part of each of n
                # processes are the same.
                number = part * self.plan.processes + self.process
                start = first + number * self.plan.micro_batch_size
                stop = start + self.plan.micro_batch_size
                yield [(epoch, index) for index in order[start:stop]]

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch))
        steps, batch_size = self.steps_per_epoch, self.plan.batch_size
        if self.shard_lengths:
            return shard_order(self.shard_lengths, steps, batch_size, generator)
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        missing = steps * batch_size - self.length
        return order + [order[i % self.length] for i in range(missing)]


def shard_order(
    lengths: Sequence[int], steps: int, batch_size: int, generator: torch.Generator
) -> list[int]:
    """Return a random order of an epoch that reads few shards at a time.

    The shards are shuffled and their items, one shard after the other, split into ``LANES``
    lanes. Within a lane an item moves back by up to ``WINDOW`` shards at random. Every batch takes
    its first items from the first lane, and so on: processes, which take consecutive items of a
    batch, stay in their lanes, and a batch is the same for any number of processes.

    Args:
        lengths: Number of items of each shard; items are numbered one shard after the other.
        steps: Number of batches.
        batch_size: Size of each; ``steps * batch_size`` is at least the number of items.
        generator: Random generator.

    Returns:
        Indices of items, batch after batch: each once, then as many again as fill the batches.
    """
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    shards = torch.randperm(len(lengths), generator=generator).tolist()
    items = torch.cat([torch.arange(starts[shard], starts[shard + 1]) for shard in shards])
    window = WINDOW * len(items) / len(lengths)
    needed = steps * batch_size
    items = items.repeat(-(-needed // len(items)))[:needed]
    widths = torch.bincount(torch.arange(batch_size) * LANES // batch_size, minlength=LANES)
    columns = []
    for width, lane in zip(widths.tolist(), items.split((steps * widths).tolist()), strict=True):
        # A lane begins with its first shard alone, so that nothing waits for a whole window.
        keys = torch.arange(len(lane)) + window * torch.rand(len(lane), generator=generator)
        columns.append(lane[keys.argsort(stable=True)].reshape(steps, width))
    order: list[int] = torch.cat(columns, dim=1).flatten().tolist()
    return order
