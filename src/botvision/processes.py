"""The processes of a run, and calls in a new process."""

import atexit
import contextlib
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils.memory import should_reduce_batch_size

from botvision.errors import OutOfMemoryError

_Result = TypeVar("_Result")
# Of the system, Pillow's decoders, C++ and data-loading workers, whose errors are of any type.
_OUT_OF_MEMORY = (
    *("Cannot allocate memory", "out of memory error", "std::bad_alloc"),
    "Caught MemoryError in ",
)
_AMOUNT = re.compile(r"allocate ([\d.,]+ \w+)")


def processes() -> PartialState:
    """Return rank, world size and device: a GPU if there is one, else the CPU."""
    accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    began = _in_gloo_group()
    state = PartialState(cpu=not accelerator)
    if _in_gloo_group() and not began:
        atexit.register(_leave_group)
    return state


def _in_gloo_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo"


def _leave_group() -> None:
    # A thread of Gloo that still frees a tensor while Python shuts down aborts the process, whose
    # work is done; leaving the group waits for the threads. Training has left it by itself.
    if _in_gloo_group():
        dist.destroy_process_group()


def processes_here() -> int:
    """Return the number of the run's processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def ignore_interruptions(_worker: int = 0) -> None:
    """Ignore SIGINT and SIGTERM in data-loading workers; their parent ends them.

    The terminal's Ctrl-C reaches all processes, and a run that is stopping still needs its workers.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


def call_in_new_process(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a picklable function in a new process and return its result.

    The process uses as many threads as this one, ignores Ctrl-C and belongs to no torchrun group.

    Raises:
        MemoryError: If memory did not suffice; Linux kills such a process.
        RuntimeError: If the function raised anything else, or the process ended early; one line.
    """
    # A spawned process starts with this one's peak memory as its own (Linux keeps it over exec);
    # one that the small fork server forks does not.
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_send, args=(sender, torch.get_num_threads(), function, arguments)
    )
    process.start()
    sender.close()
    error: type[Exception] | None
    value: Any
    with receiver:
        try:
            error, value = receiver.recv()
        except EOFError:
            process.join()
            error = MemoryError if process.exitcode == -signal.SIGKILL else RuntimeError
            value = f"its process ended with status {process.exitcode}"
        except BaseException:
            process.terminate()
            raise
        finally:
            process.join()
    if error is not None:
        raise error(value)
    return value


def _send(
    connection: Any, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller gets it too, and ends this process
    for name in [name for name in os.environ if name.endswith("RANK") or "WORLD_SIZE" in name]:
        del os.environ[name]
    torch.set_num_threads(threads)
    try:
        connection.send((None, function(*arguments)))
    except Exception as error:
        kind = MemoryError if out_of_memory(error) else RuntimeError
        connection.send((kind, first_line(error)))


def peak_memory() -> int:
    """Return the most bytes that this process has held at any time (not on Windows)."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory did not suffice, on whatever device."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    if isinstance(error, kinds) or should_reduce_batch_size(error):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)


@contextlib.contextmanager
def one_line_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn lack of memory inside the block into one line.

    Args:
        what: What the block does, such as "model.safetensors: loading the weights".
        remedy: What to do about it.

    Raises:
        OutOfMemoryError: If memory does not suffice; it names the amount where that is known.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        amount = _AMOUNT.search(str(error))
        tried = f" (tried to allocate {amount[1]})" if amount else ""
        raise OutOfMemoryError(f"{what}: out of memory{tried}; {remedy}") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
