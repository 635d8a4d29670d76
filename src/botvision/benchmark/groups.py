"""Groups of cases that are measured together, and the figures that come of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from botvision.benchmark.measuring import (
    FORWARD,
    FORWARD_BACKWARD,
    MatrixProduct,
    Prepared,
    Timing,
    memory_on_cpu,
    memory_on_gpu,
    reason_of,
    run_pass,
    take_turns,
)

# The backward pass has two products for each of the forward one. What an implementation computes
# again, to save memory, is no work of the function and is not counted.
WORK = {FORWARD: 1, FORWARD_BACKWARD: 3}

_PRODUCT = "matrix product"


@dataclass(frozen=True)
class Case:
    """One network or layer in one pass.

    Attributes:
        name: Of the layer or model.
        operations: Floating-point operations of the products in its forward pass.
        prepare: Makes network and input.
        warm_up: Makes a small network and input of the kind.
        unavailable: Why it cannot be measured, if that is known already.
    """

    name: str
    operations: int
    prepare: Callable[[], Prepared]
    warm_up: Callable[[], Prepared]
    unavailable: str | None = None


@dataclass(frozen=True)
class Measured:
    """Figures of one case; None where there is none.

    Attributes:
        name: Of the layer or model.
        seconds: Median time of a pass.
        spread: Range of the middle half of the times, as a share of the median.
        ratio: Time as a multiple of the baseline's, the first case of the group.
        share_of_peak: Rate of the operations as a share of the matrix product's.
        memory_bytes: What the pass adds to the memory in use, at its peak.
        unavailable: Why there are no figures: "not installed", "out of memory" or another reason.
    """

    name: str
    seconds: float | None = None
    spread: float | None = None
    ratio: float | None = None
    share_of_peak: float | None = None
    memory_bytes: int | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class Group:
    """Cases that took turns.

    Attributes:
        pass_name: "forward" or "forward+backward".
        rounds: That each case took part in.
        peak_operations_per_second: Rate of the matrix product in the same rounds.
        results: A case each, in the order of their turns.
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
    progress: Callable[[str], None],
) -> Group:
    """Measure memory and time of cases, with a matrix product taking its turn among them.

    Args:
        cases: The first is the baseline.
        pass_name: "forward" or "forward+backward".
        device: "cpu" or "cuda".
        dtype: Of the matrix product.
        seconds: Budget of the timing.
        progress: Is told what is going on.
    """
    failures = {case.name: case.unavailable for case in cases if case.unavailable}
    memory: dict[str, int] = {}
    prepared: dict[str, Prepared] = {}
    for case in cases:
        if case.name in failures:
            continue
        if device == "cpu":
            progress(f"memory of {case.name}")
            added = memory_on_cpu(case.prepare, case.warm_up, pass_name)
            if isinstance(added, str):
                failures[case.name] = added
                continue
            memory[case.name] = added
        try:
            prepared[case.name] = case.prepare()
        except Exception as error:
            failures[case.name] = reason_of(error)
    progress(f"time of {', '.join(prepared)}")
    turns, product = {}, MatrixProduct(device, dtype)
    if prepared:
        passes = {name: partial(run_pass, *pair, pass_name) for name, pair in prepared.items()}
        turns = take_turns({_PRODUCT: product, **passes}, seconds)
    timings = {name: turn for name, turn in turns.items() if isinstance(turn, Timing)}
    failures |= {name: turn for name, turn in turns.items() if isinstance(turn, str)}
    if device == "cuda":
        for name in timings.keys() & prepared.keys():
            memory[name] = memory_on_gpu(*prepared[name], pass_name)
    clock = timings.pop(_PRODUCT, None)
    peak = None if clock is None else product.operations / clock.seconds
    work = {case.name: WORK[pass_name] * case.operations for case in cases}
    return Group(
        pass_name=pass_name,
        rounds=max((timing.rounds for timing in timings.values()), default=0),
        peak_operations_per_second=peak,
        results=figures(work, timings, memory, failures, peak=peak),
    )


def figures(
    operations: Mapping[str, int],
    timings: Mapping[str, Timing],
    memory: Mapping[str, int],
    failures: Mapping[str, str],
    *,
    peak: float | None,
) -> list[Measured]:
    """Put what was measured side by side.

    Args:
        operations: Of the pass, by case; the first case is the baseline.
        timings: By case that was timed.
        memory: Bytes added, by case.
        failures: Reasons, by case that has no figures.
        peak: Operations a second of the matrix product.
    """
    baseline = timings.get(next(iter(operations)))
    results = []
    for name, count in operations.items():
        timing = timings.get(name)
        if timing is None:
            results.append(Measured(name, unavailable=failures[name]))
            continue
        results.append(
            Measured(
                name,
                seconds=timing.seconds,
                spread=timing.spread,
                ratio=None if baseline is None else timing.seconds / baseline.seconds,
                share_of_peak=None if peak is None else count / timing.seconds / peak,
                memory_bytes=memory.get(name),
            )
        )
    return results
