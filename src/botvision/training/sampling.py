"""Batches: how they are split, and their order as a function of the seed and the step alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from botvision.seeds import derived_seed
from botvision.training.settings import TrainingSettings
from botvision.training.shard_order import shard_order


@dataclass(frozen=True)
class BatchPlan:
    """How the images of an optimizer step are split over processes and over time.

    Attributes:
        micro_batch_size: Images a process takes at a time.
        processes: Number of processes.
        accumulation: Times that each takes them before the optimizer steps.
        rate_factor: What the recipe's learning rate is multiplied by.
    """

    micro_batch_size: int
    processes: int
    accumulation: int
    rate_factor: float

    @classmethod
    def of(cls, settings: TrainingSettings, processes: int) -> "BatchPlan":
        """The plan that is nearest to the recipe's batch on this many processes."""
        share = math.ceil(settings.batch_size / processes)
        at_once = min(settings.micro_batch_size or share, share)
        accumulation = max(1, round(settings.batch_size / (at_once * processes)))
        total = at_once * processes * accumulation
        ratio = total / (settings.base_batch_size or settings.batch_size)
        # SGD's steps add up (Goyal et al. 2017); AdamW's are normalized by the gradient's noise.
        factor = ratio if settings.optimizer == "sgd" else math.sqrt(ratio)
        return cls(at_once, processes, accumulation, factor)

    @property
    def batch_size(self) -> int:
        """Images of an optimizer step."""
        return self.micro_batch_size * self.processes * self.accumulation

    def describe(self, settings: TrainingSettings) -> str:
        """The plan in a line, and what became of the recipe's batch and learning rate."""
        at_once = "image" if self.micro_batch_size == 1 else "images"
        processes = "process" if self.processes == 1 else "processes"
        line = (
            f"batch of {self.batch_size}: {self.micro_batch_size} {at_once} at once x "
            f"{self.processes} {processes} x {self.accumulation} accumulated"
        )
        if self.batch_size != settings.batch_size:
            line += f" (the recipe's {settings.batch_size} cannot be split so)"
        if self.rate_factor != 1:
            nominal = settings.base_batch_size or settings.batch_size
            how = "in proportion" if settings.optimizer == "sgd" else "with the square root"
            line += (
                f"; learning rate {settings.learning_rate * self.rate_factor:.4g}, scaled {how} "
                f"from {settings.learning_rate:g} for a batch of {nominal}"
            )
        return line


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys for one process, from a step to the end of the run.

    Each epoch is a permutation drawn from (seed, epoch), filled up with its first items so that
    it divides into whole batches; over shards see ``shard_order``. Step s holds the same images
    whether the run was interrupted before it or not, and however many processes share it.

    Args:
        length: Items of the data set.
        plan: How a step is split; this gives ``plan.accumulation`` batches a step.
        epochs: Epochs of the run.
        seed: Of the order.
        max_steps: Steps after which the run ends if that comes first.
        first_step: Where to begin; steps before it are skipped without being read.
        process: Number of this process.
        shard_lengths: Items of each shard, if the data set is in shards.
    """

    def __init__(
        self,
        length: int,
        plan: BatchPlan,
        epochs: int,
        *,
        seed: int,
        max_steps: int | None = None,
        first_step: int = 0,
        process: int = 0,
        shard_lengths: Sequence[int] = (),
    ) -> None:
        self._length = length
        self._shard_lengths = shard_lengths
        self._plan = plan
        self._seed = seed
        self._first_step = first_step
        self._process = process
        self.steps_per_epoch = -(-length // plan.batch_size)
        self.total_steps = self.steps_per_epoch * epochs
        if max_steps is not None:
            self.total_steps = min(self.total_steps, max_steps)

    def __len__(self) -> int:
        return max(0, self.total_steps - self._first_step) * self._plan.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: list[int] = []
        for step in range(self._first_step, self.total_steps):
            epoch, place = divmod(step, self.steps_per_epoch)
            if not order or place == 0:
                order = self._order(epoch)
            first = place * self._plan.batch_size
            for part in range(self._plan.accumulation):
                # Parts are numbered over all processes, so that n parts of one process and one
                # part of each of n processes are the same.
                number = part * self._plan.processes + self._process
                start = first + number * self._plan.micro_batch_size
                stop = start + self._plan.micro_batch_size
                yield [(epoch, index) for index in order[start:stop]]

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derived_seed(self._seed, epoch))
        steps, batch_size = self.steps_per_epoch, self._plan.batch_size
        if self._shard_lengths:
            return shard_order(self._shard_lengths, steps, batch_size, generator)
        order: list[int] = torch.randperm(self._length, generator=generator).tolist()
        missing = steps * batch_size - self._length
        return order + [order[i % self._length] for i in range(missing)]
