"""Fetching shards before their items are read."""

import bisect
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawValue
from typing import Any

import torch
from torch import Tensor

from botvision.processes import ignore_interruptions, processes_here
from botvision.shards.read import ShardFiles

AHEAD = 16
"""Number of shards that a machine holds beyond those that its batches have needed."""

_AT_ONCE = 8  # shards that a machine fetches at a time
_CACHE_FRACTION = 0.25  # of a limited cache, for shards that are not needed yet
_PAUSE = 0.1  # seconds between two looks at how many batches were read


def shard_lengths(shards: Tensor) -> tuple[int, ...]:
    """Return the number of items of each shard, in the order of the items.

    Args:
        shards: Number of each item's shard, int64 [n].

    Returns:
        The lengths; empty if the items of a shard are not next to each other.
    """
    numbers, lengths = shards.unique_consecutive(return_counts=True)
    if len(numbers.unique()) < len(numbers):
        return ()
    return tuple(lengths.tolist())


@contextmanager
def shards_ahead(data: Any, batches: Iterable[list[Any]]) -> Iterator[Callable[[], None]]:
    """Fetch the shards of batches in another process while the batches are read.

    Errors are left to the reader of the items, who meets them again.

    Args:
        data: Data set. If it has ``shard_files`` that come from an address, they are fetched; its
            ``shard(index)`` returns the number of the shard that holds an item.
        batches: Lists of keys (epoch, index) of its items; iterated over once more than by their
            reader.

    Yields:
        A function to call after each batch that was read.
    """
    files: ShardFiles | None = getattr(data, "shard_files", None)
    ahead = 0
    if files is not None and files.fetched:
        ahead = int(min(AHEAD, _CACHE_FRACTION * files.room()))
    if not ahead:
        yield lambda: None
        return
    done = RawValue("q", 0)  # has one writer

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
    data: Any, files: ShardFiles, batches: Iterable[list[Any]], done: Any, ahead: int
) -> None:
    ignore_interruptions()
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    parent = multiprocessing.parent_process()
    assert parent is not None
    needed_by: list[int] = []  # first batch that needs each of the shards asked for
    with ThreadPoolExecutor(-(-_AT_ONCE // processes_here())) as pool:
        for number, shard in _first_uses(data, batches):
            while len(needed_by) - bisect.bisect_left(needed_by, done.value) >= ahead:
                if not parent.is_alive():
                    return
                time.sleep(_PAUSE)
            needed_by.append(number)
            pool.submit(files.fetch, shard)  # its error is the reader's


def _first_uses(data: Any, batches: Iterable[list[Any]]) -> Iterator[tuple[int, int]]:
    """Yield numbers of batches and of the shards that they are the first of an epoch to need."""
    seen: set[tuple[int, int]] = set()
    for number, keys in enumerate(batches):
        for epoch, index in keys:
            use = epoch, data.shard(index)
            if use not in seen:
                seen.add(use)
                yield number, use[1]
