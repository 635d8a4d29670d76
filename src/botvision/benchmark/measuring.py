"""Passes of a network: running them, timing them in turns, and the memory they add."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from botvision.processes import call_in_new_process, first_line, out_of_memory, peak_memory

FORWARD = "forward"
FORWARD_BACKWARD = "forward+backward"
PASSES = (FORWARD, FORWARD_BACKWARD)

LEAST_ROUNDS = 3
MOST_ROUNDS = 100

# Large enough for the full rate of the device, small enough to take its turn in every round.
_PRODUCT_SIDES = {"cpu": 1024, "cuda": 8192}

Prepared = tuple[nn.Module, Tensor]


@dataclass(frozen=True)
class Timing:
    """Wall-clock time of a pass.

    Attributes:
        seconds: Median over the rounds.
        spread: Range of the middle half of the rounds, as a share of the median.
        rounds: Their number.
    """

    seconds: float
    spread: float
    rounds: int

    @classmethod
    def of(cls, times: list[float]) -> "Timing":
        """Summarize the seconds of at least two rounds."""
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        return cls(median, (high - low) / median, len(times))


def run_pass(network: nn.Module, x: Tensor, pass_name: str) -> None:
    """Run one pass and wait for its end.

    Args:
        network: Layer or network in the mode wanted, with one output.
        x: Its input; forward+backward includes the gradient for it if it requires one.
        pass_name: One of ``PASSES``. The forward pass alone keeps nothing for a backward one.
    """
    if pass_name == FORWARD:
        with torch.no_grad():
            network(x)
    else:
        forget_gradients(network, x)
        out = network(x)
        out.backward(torch.ones_like(out))
    wait_for(x.device)


def forget_gradients(network: nn.Module, x: Tensor) -> None:
    """Free the gradients of an earlier pass."""
    network.zero_grad(set_to_none=True)
    x.grad = None


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class MatrixProduct:
    """A product of large square matrices, whose rate is the peak that others are measured by.

    Args:
        device: "cpu" or "cuda".
        dtype: Of the matrices.

    Attributes:
        operations: Floating-point operations of one call.
    """

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        side = _PRODUCT_SIDES[device]
        self.operations = 2 * side**3
        self._left, self._right = torch.randn(2, side, side, device=device).to(dtype)
        self._out = torch.empty_like(self._left)

    def __call__(self) -> None:
        """Multiply and wait for the end."""
        torch.mm(self._left, self._right, out=self._out)
        wait_for(self._out.device)


def take_turns(cases: Mapping[str, Callable[[], None]], seconds: float) -> dict[str, Timing | str]:
    """Time cases in turns, so that a busy machine is busy for all of them.

    A first, uncounted round warms up. Rounds follow as long as another one fits into the budget,
    at least ``LEAST_ROUNDS`` and at most ``MOST_ROUNDS``. A case that raises takes no further turn.

    Args:
        cases: What to run, by name.
        seconds: Budget of the counted rounds together.

    Returns:
        By name, the timing, or why there is none.
    """
    failures: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    # Caches remember the case before, so none may always follow the same other.
    shuffle = random.Random(0).shuffle

    def play_round() -> None:
        shuffle(order)
        for name in order:
            if name in failures:
                continue
            start = time.perf_counter()
            try:
                cases[name]()
            except Exception as error:
                failures[name] = reason_of(error)
            else:
                times[name].append(time.perf_counter() - start)

    play_round()
    for warm_up in times.values():
        warm_up.clear()
    start, rounds = time.perf_counter(), 0
    while rounds < LEAST_ROUNDS or (
        rounds < MOST_ROUNDS and (time.perf_counter() - start) * (1 + 1 / rounds) <= seconds
    ):
        play_round()
        rounds += 1
    return {name: failures.get(name) or Timing.of(times[name]) for name in cases}


def reason_of(error: Exception) -> str:
    """Return why a case has no figures in one line; an error is a result as well."""
    return "out of memory" if out_of_memory(error) else f"not available: {first_line(error)}"


def memory_on_gpu(network: nn.Module, x: Tensor, pass_name: str) -> int:
    """Bytes that a pass adds to what is allocated on the GPU, at its peak."""
    forget_gradients(network, x)
    wait_for(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    before = torch.cuda.memory_allocated(x.device)
    run_pass(network, x, pass_name)
    return torch.cuda.max_memory_allocated(x.device) - before


def memory_on_cpu(
    prepare: Callable[[], Prepared], warm_up: Callable[[], Prepared], pass_name: str
) -> int | str:
    """Measure the bytes that a pass adds to the peak memory of a new process.

    Args:
        prepare: Makes the network and its input, in the new process.
        warm_up: Makes a small network and input, to load all that a first pass loads.
        pass_name: One of ``PASSES``.

    Returns:
        The bytes, or why there are none.
    """
    try:
        return call_in_new_process(_added_memory, prepare, warm_up, pass_name)
    except (MemoryError, RuntimeError) as error:
        return reason_of(error)


def _added_memory(
    prepare: Callable[[], Prepared], warm_up: Callable[[], Prepared], pass_name: str
) -> int:
    run_pass(*warm_up(), pass_name)
    network, x = prepare()
    before = peak_memory()
    run_pass(network, x, pass_name)
    return peak_memory() - before
