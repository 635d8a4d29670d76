"""Data loading in worker processes that survive Ctrl-C and fail with one-line errors."""

import re
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset

from botvision.errors import BotvisionError, OutOfMemoryError
from botvision.images.batches import FORWARD_PIXELS, batches_within
from botvision.processes import (
    ignore_interruptions,
    one_line_out_of_memory,
    out_of_memory,
    processes,
)
from botvision.shards.prefetch import shards_ahead

_ERROR_NAME = re.compile(r"^botvision(\.\w+)+: ")


class DataWorkerError(BotvisionError):
    """A data-loading worker was killed, for example because the machine is out of memory."""


def evaluation_batches(
    length: int, batch_size: int, pixels: Sequence[int] | None = None
) -> list[list[tuple[int, int]]]:
    """Return the batches of (0, index) keys that this process takes in an evaluation.

    Batches are distributed whole, so that the padding of images and the rounding of sums do not
    depend on the number of processes.

    Args:
        length: Number of items of the data set.
        batch_size: Number of items of a batch; the last one may have fewer.
        pixels: Number of pixels of each item, whose images are read whole: batches of large images
            have fewer items, see ``FORWARD_PIXELS``. None: items are small.
    """
    sizes = [0] * length if pixels is None else pixels
    batches = list(batches_within(range(length), sizes.__getitem__, FORWARD_PIXELS, batch_size))
    own = batches[processes().process_index :: processes().num_processes]
    return [[(0, index) for index in batch] for batch in own]


def load_batches(
    data: Dataset[Any],
    batches: Iterable[list[Any]],
    *,
    collate: Callable[[list[Any]], Any],
    num_workers: int,
    pin_memory: bool = False,
) -> Generator[Any, None, None]:
    """Yield batches of a data set, read ahead by workers; closing the generator ends the workers.

    Args:
        data: Data set; shards that come from an address are fetched ahead, see ``shards_ahead``.
        batches: Lists of keys of items.
        collate: Function that makes a batch of items. Workers get a copy of it: pass a function
            of a module, or an object that can be pickled and is small, never a method of an
            object that holds the model.
        num_workers: Number of worker processes; 0 reads in this process.
        pin_memory: Whether to put tensors into page-locked memory, which GPUs copy from faster.

    Yields:
        The collated batches, in the order of ``batches``.

    Raises:
        BotvisionError: If an item cannot be read.
        DataWorkerError: If a worker was killed.
    """
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=ignore_interruptions,
    )
    with shards_ahead(data, batches) as advance:
        iterator = _iterator(loader)
        try:
            with _one_line_errors(num_workers):
                for batch in iterator:
                    advance()
                    yield batch
        finally:
            # An error's traceback may keep the iterator to the end, where Python would wait for
            # ever for workers that ignore its signal.
            if num_workers:
                iterator._shutdown_workers()


def _iterator(loader: DataLoader[Any]) -> Any:
    """Return the loader's iterator, without torch's signal handler for workers that die.

    The handler would raise anywhere, in the middle of a step or of saving; waiting for data
    notices the death as well.
    """
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return iterator


@contextmanager
def _one_line_errors(num_workers: int) -> Iterator[None]:
    """Raise errors of workers without the traceback that torch puts into their message."""
    try:
        yield
    except BotvisionError as error:
        line = str(error).strip().splitlines()[-1]
        kind = OutOfMemoryError if isinstance(error, OutOfMemoryError) else BotvisionError
        raise kind(_ERROR_NAME.sub("", line)) from error
    except (MemoryError, RuntimeError, EOFError, OSError) as error:
        with one_line_out_of_memory(
            "data: reading a batch", "lower training.num_workers or the batch size"
        ):
            if out_of_memory(error):
                raise
        reason = " ".join(str(error).split())
        if isinstance(error, RuntimeError):
            died = reason.startswith("DataLoader worker")
        else:  # a worker that dies while it hands over a batch cuts its connection
            died = num_workers > 0 and not reason.startswith("Caught ")
        if not died:
            raise
        raise DataWorkerError(
            f"a data worker died, possibly out of memory ({reason or type(error).__name__}); lower "
            "training.num_workers"
        ) from error
