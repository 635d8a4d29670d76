"""Reading a data set in worker processes that outlive Ctrl-C and fail in one line."""

import re
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset

from botvision.errors import BotvisionError
from botvision.processes import ignore_interruptions, processes
from botvision.shards.prefetch import shards_ahead

_ERROR_NAME = re.compile(r"^botvision(\.\w+)+: ")


class DataWorkerError(BotvisionError):
    """A process that reads data was killed, as by a lack of memory."""


def evaluation_batches(length: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """Batches of (0, index) keys that this process takes in an evaluation.

    They are dealt out whole: what a batch's images are padded to, and how its sums are rounded,
    does not depend on the number of processes.
    """
    starts = range(0, length, batch_size)[processes().process_index :: processes().num_processes]
    return [
        [(0, index) for index in range(start, min(start + batch_size, length))] for start in starts
    ]


def load_batches(
    data: Dataset[Any],
    batches: Iterable[list[Any]],
    *,
    collate: Callable[[list[Any]], Any],
    num_workers: int,
    pin_memory: bool = False,
) -> Generator[Any, None, None]:
    """Batches of a data set, read by workers ahead of time; closing it ends the workers.

    Args:
        data: The data set; of one in shards that come from elsewhere see ``shards_ahead``.
        batches: Lists of keys of its items.
        collate: Makes items a batch.
        num_workers: Processes that read; 0 reads in this one.
        pin_memory: Whether tensors go where a GPU fetches them faster.

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
    """The loader's iterator, whose workers' deaths are errors of waiting for data alone.

    torch would raise them from a signal handler, anywhere: in the middle of a step or of saving.
    """
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return iterator


@contextmanager
def _one_line_errors(num_workers: int) -> Iterator[None]:
    """Errors of workers without the traceback that torch puts into their message."""
    try:
        yield
    except BotvisionError as error:
        line = str(error).strip().splitlines()[-1]
        raise BotvisionError(_ERROR_NAME.sub("", line)) from error
    except (RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())
        # Of a worker that dies while it hands something over, only the cut connection is seen.
        cut = (
            num_workers > 0
            and not isinstance(error, RuntimeError)
            and not reason.startswith("Caught ")
        )
        if not cut and not reason.startswith("DataLoader worker"):
            raise
        reason = reason or type(error).__name__
        raise DataWorkerError(
            f"a data worker died, perhaps for want of memory ({reason}); lower training.num_workers"
        ) from error
