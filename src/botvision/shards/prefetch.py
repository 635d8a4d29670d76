"""Fetching shards before the items in them are asked for."""

import bisect
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawValue
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from botvision.processes import ignore_interruptions, processes_here
from botvision.shards.files import ShardFiles

AHEAD = 16
"""Shards that a machine holds beyond those that batches have needed so far."""

AT_ONCE = 8
"""Shards that a machine fetches at a time."""

_SHARE = 0.25  # of a limited cache that may be for what is not yet needed
_PAUSE = 0.1  # seconds between two looks at how far the batches are


@runtime_checkable
class ShardedData(Protocol):
    """A data set whose items may lie in shards; keys of items are (epoch, index)."""

    @property
    def shard_files(self) -> ShardFiles | None:
        """The shards; None: the items are in none."""

    def shard(self, index: int) -> int:
        """Number of the shard that an item is in."""


def shard_lengths(shards: Tensor) -> tuple[int, ...]:
    """Number of items of each shard, one after the other; empty if items of one stand apart.

    Args:
        shards: Of each item the number of its shard, int64 [n].
    """
    numbers, lengths = shards.unique_consecutive(return_counts=True)
    if len(numbers.unique()) < len(numbers):
        return ()  # the items' order is not that of the shards: whoever wants it fast shards anew
    return tuple(lengths.tolist())


@contextmanager
def shards_ahead(data: Any, batches: Iterable[list[Any]]) -> Iterator[Callable[[], None]]:
    """Fetch the shards of batches, in a process of its own, while the batches are read.

    Errors are left to whoever reads the items, and meets them again.

    Args:
        data: Shards are fetched if it is ``ShardedData`` whose shards come from elsewhere.
        batches: Keys of its items; iterated over once more than by their reader.

    Yields:
        To be called for each batch that its reader has got.
    """
    files = data.shard_files if isinstance(data, ShardedData) else None
    ahead = 0 if files is None or not files.fetched else int(min(AHEAD, _SHARE * files.room()))
    if not ahead:
        yield lambda: None
        return
    done = RawValue("q", 0)  # of one writer

    def advance() -> None:
        done.value += 1

    # A process, since a thread could hold a lock at the moment when data workers are forked.
    arguments = data, files, batches, done, -(-ahead // processes_here())
    process = multiprocessing.Process(target=_fetch, args=arguments, daemon=True)
    process.start()
    try:
        yield advance
    finally:
        process.kill()
        process.join()


def _fetch(
    data: ShardedData, files: ShardFiles, batches: Iterable[list[Any]], done: Any, ahead: int
) -> None:
    ignore_interruptions()
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    parent = multiprocessing.parent_process()
    assert parent is not None
    needed_by: list[int] = []  # of each shard asked for, the first batch that needs it
    with ThreadPoolExecutor(-(-AT_ONCE // processes_here())) as pool:
        for number, shard in _first_uses(data, batches):
            while len(needed_by) - bisect.bisect_left(needed_by, done.value) >= ahead:
                if not parent.is_alive():
                    return
                time.sleep(_PAUSE)
            needed_by.append(number)
            pool.submit(files.fetch, shard)  # its error is for whoever reads the shard


def _first_uses(data: ShardedData, batches: Iterable[list[Any]]) -> Iterator[tuple[int, int]]:
    """Numbers of batches, and of the shards that no earlier batch of the epoch needs."""
    seen: set[tuple[int, int]] = set()
    for number, keys in enumerate(batches):
        for epoch, index in keys:
            use = epoch, data.shard(index)
            if use not in seen:
                seen.add(use)
                yield number, use[1]
