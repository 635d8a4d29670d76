"""Time and memory of passes: cases take turns, with a large matrix product among them."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from botvision.processes import call_in_new_process, first_line, out_of_memory, peak_memory

FORWARD = "forward"
FORWARD_BACKWARD = "forward+backward"
# The backward pass has two products for each of the forward one. Recomputation, which saves memory,
# is no work of the function and is not counted.
WORK = {FORWARD: 1, FORWARD_BACKWARD: 3}
PASSES = tuple(WORK)

LEAST_ROUNDS = 3
MOST_ROUNDS = 100

_PRODUCT = "matrix product"
# Large enough for the full rate of the device, small enough to take its turn in every round.
_PRODUCT_SIDES = {"cpu": 1024, "cuda": 8192}

Prepared = tuple[nn.Module, Tensor]


@dataclass(frozen=True)
class Case:
    """One model or layer in one pass.

    Attributes:
        name: Name of the layer or model.
        operations: Floating-point operations of the products in its forward pass.
        prepare: Makes the network and its input.
        warm_up: Makes a small network of the kind and its input, to try it and to load all that a
            first pass loads.
    """

    name: str
    operations: int
    prepare: Callable[[], Prepared]
    warm_up: Callable[[], Prepared]


@dataclass(frozen=True)
class Timing:
    """Wall-clock time of a pass.

    Attributes:
        seconds: Median over the rounds.
        spread: Interquartile range of the rounds as a fraction of the median.
        rounds: Number of rounds.
    """

    seconds: float
    spread: float
    rounds: int

    @classmethod
    def of(cls, times: list[float]) -> "Timing":
        """Summarize the seconds of at least two rounds."""
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        return cls(median, (high - low) / median, len(times))


@dataclass(frozen=True)
class Measured:
    """Figures of one case; None where there is none.

    Attributes:
        name: Name of the layer or model.
        seconds: Median time of a pass.
        spread: Interquartile range of the times as a fraction of the median.
        ratio: Time as a multiple of that of the baseline, the first case of the group.
        utilization: Rate of the operations as a fraction of the matrix product's.
        memory_bytes: Bytes that the pass adds to the memory in use, at its peak.
        unavailable: Why there are no figures: "not installed", "out of memory" or another reason.
    """

    name: str
    seconds: float | None = None
    spread: float | None = None
    ratio: float | None = None
    utilization: float | None = None
    memory_bytes: int | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class Group:
    """Cases that took turns.

    Attributes:
        pass_name: "forward" or "forward+backward".
        rounds: Number of rounds.
        peak_operations_per_second: Rate of the matrix product in the same rounds.
        results: Figures of the cases, in their order.
    """

    pass_name: str
    rounds: int
    peak_operations_per_second: float | None
    results: list[Measured]


def measure_group(
    cases: Sequence[Case],
    pass_name: str,
    *,
    device: str,
    dtype: torch.dtype,
    seconds: float,
    title: str = "",
    progress: Callable[[str], None] | None = None,
) -> Group:
    """Measure memory and time of cases, which take turns with a large matrix product.

    Args:
        cases: Cases to measure; the first is the baseline.
        pass_name: "forward" or "forward+backward".
        device: "cpu" or "cuda".
        dtype: Dtype of the matrix product.
        seconds: Budget of the timed rounds.
        title: Text before each step.
        progress: Called with the current step.
    """
    turns: dict[str, Timing | str] = {}
    memory: dict[str, int] = {}
    prepared: dict[str, Prepared] = {}
    for case in cases:
        if progress is not None:
            progress(f"{title}memory of {case.name}")
        try:
            run_pass(*case.warm_up(), pass_name)
            if device == "cpu":
                memory[case.name] = memory_on_cpu(case.prepare, case.warm_up, pass_name)
            prepared[case.name] = case.prepare()
        except Exception as error:
            turns[case.name] = reason_of(error)
    if progress is not None:
        progress(f"{title}time of {', '.join(prepared)}")
    product = MatrixProduct(device, dtype)
    if prepared:
        passes = {name: partial(run_pass, *pair, pass_name) for name, pair in prepared.items()}
        turns |= take_turns({_PRODUCT: product, **passes}, seconds)
    if device == "cuda":
        for name, pair in prepared.items():
            if isinstance(turns[name], Timing):
                memory[name] = memory_on_gpu(*pair, pass_name)
    clock = turns.pop(_PRODUCT, None)
    peak = product.operations / clock.seconds if isinstance(clock, Timing) else None
    work = {case.name: WORK[pass_name] * case.operations for case in cases}
    return Group(
        pass_name=pass_name,
        rounds=max((turn.rounds for turn in turns.values() if isinstance(turn, Timing)), default=0),
        peak_operations_per_second=peak,
        results=figures(work, turns, memory, peak=peak),
    )


def figures(
    operations: Mapping[str, int],
    turns: Mapping[str, Timing | str],
    memory: Mapping[str, int],
    *,
    peak: float | None,
) -> list[Measured]:
    """Collect the measurements by case.

    Args:
        operations: Operations of the pass by case; the first case is the baseline.
        turns: Timing of each case, or why there is none.
        memory: Added bytes by case.
        peak: Operations per second of the matrix product.
    """
    baseline = turns[next(iter(operations))]
    results = []
    for name, count in operations.items():
        timing = turns[name]
        if isinstance(timing, str):
            results.append(Measured(name, unavailable=timing))
            continue
        measured = Measured(
            name,
            seconds=timing.seconds,
            spread=timing.spread,
            ratio=None if isinstance(baseline, str) else timing.seconds / baseline.seconds,
            utilization=None if peak is None else count / timing.seconds / peak,
            memory_bytes=memory.get(name),
        )
        results.append(measured)
    return results


def run_pass(network: nn.Module, x: Tensor, pass_name: str) -> None:
    """Run one pass and wait for its end.

    Args:
        network: Layer or network in the intended mode, with one output.
        x: Input; forward+backward computes its gradient as well if it requires one.
        pass_name: One of ``PASSES``. The forward pass alone keeps nothing for a backward one.
    """
    if pass_name == FORWARD:
        with torch.no_grad():
            network(x)
    else:
        network.zero_grad(set_to_none=True)
        x.grad = None
        out = network(x)
        out.backward(torch.ones_like(out))
    wait_for(x.device)


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class MatrixProduct:
    """A product of large square matrices, used as the peak for the utilization.

    Args:
        device: "cpu" or "cuda".
        dtype: Dtype of the matrices.

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

    The first round warms up and is not counted. Rounds follow as long as another one fits into the
    budget, at least ``LEAST_ROUNDS`` and at most ``MOST_ROUNDS``. A case that raises is left out.

    Args:
        cases: Functions to time, by name.
        seconds: Budget of the counted rounds.

    Returns:
        The timing of each case, or why there is none.
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
    if isinstance(error, ModuleNotFoundError):
        return "not installed"
    return "out of memory" if out_of_memory(error) else f"not available: {first_line(error)}"


def memory_on_gpu(network: nn.Module, x: Tensor, pass_name: str) -> int:
    """Return the bytes that a pass adds to the allocated GPU memory, at its peak."""
    network.zero_grad(set_to_none=True)
    x.grad = None
    wait_for(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    before = torch.cuda.memory_allocated(x.device)
    run_pass(network, x, pass_name)
    return torch.cuda.max_memory_allocated(x.device) - before


def memory_on_cpu(
    prepare: Callable[[], Prepared], warm_up: Callable[[], Prepared], pass_name: str
) -> int:
    """Return the bytes that a pass adds to the peak memory of a new process.

    Args:
        prepare: Makes the network and its input, in the new process.
        warm_up: Makes a small network and input, to load all that a first pass loads.
        pass_name: One of ``PASSES``.

    Raises:
        MemoryError: If the process ran out of memory.
        RuntimeError: If the pass failed.
    """
    return call_in_new_process(_added_memory, prepare, warm_up, pass_name)


def _added_memory(
    prepare: Callable[[], Prepared], warm_up: Callable[[], Prepared], pass_name: str
) -> int:
    run_pass(*warm_up(), pass_name)
    network, x = prepare()
    before = peak_memory()
    run_pass(network, x, pass_name)
    return peak_memory() - before
