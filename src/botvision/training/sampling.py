"""The order of the training data as a function of the seed and the step alone."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from botvision.data.seeds import derived_seed


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys for one process, from a step to the end of the run.

    Each epoch is a permutation drawn from (seed, epoch), filled up with its first items so that
    it divides into whole batches for all processes. Step s is the same batch whether the run
    was interrupted before it or not.

    Args:
        length: Items of the data set.
        batch_size: Items a step and process.
        epochs: Epochs of the run.
        seed: Of the order.
        first_step: Where to begin; steps before it are skipped without being read.
        process: Number of this process.
        processes: Number of processes.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        epochs: int,
        *,
        seed: int,
        first_step: int = 0,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._first_step = first_step
        self._process = process
        self._global_batch = batch_size * processes
        self.steps_per_epoch = -(-length // self._global_batch)
        self.total_steps = self.steps_per_epoch * epochs

    def __len__(self) -> int:
        return self.total_steps - self._first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: list[int] = []
        for step in range(self._first_step, self.total_steps):
            epoch, place = divmod(step, self.steps_per_epoch)
            if not order or place == 0:
                order = self._order(epoch)
            start = place * self._global_batch + self._process * self._batch_size
            yield [(epoch, index) for index in order[start : start + self._batch_size]]

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derived_seed(self._seed, epoch))
        order: list[int] = torch.randperm(self._length, generator=generator).tolist()
        missing = self.steps_per_epoch * self._global_batch - self._length
        return order + [order[i % self._length] for i in range(missing)]
