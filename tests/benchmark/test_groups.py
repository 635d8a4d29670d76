"""Figures of cases that were measured together."""

from functools import partial

import pytest
import torch

from botvision.benchmark import measuring
from botvision.benchmark.measuring import (
    FORWARD,
    FORWARD_BACKWARD,
    Case,
    MatrixProduct,
    Measured,
    Timing,
    figures,
    measure_group,
)


def test_ratios_and_shares():
    timings = {"ours": Timing(0.5, 0.1, 7), "theirs": Timing(2.0, 0.2, 7)}
    ours, theirs = figures(
        {"ours": 10, "theirs": 20}, timings, {"ours": 100, "theirs": 300}, peak=80.0
    )
    assert ours == Measured("ours", 0.5, 0.1, 1.0, 0.25, 100)
    assert theirs == Measured("theirs", 2.0, 0.2, 4.0, 0.125, 300)


def test_no_baseline_no_ratio():
    ours, theirs = figures(
        {"ours": 1, "theirs": 1},
        {"ours": "out of memory", "theirs": Timing(2.0, 0.0, 3)},
        {},
        peak=None,
    )
    assert ours == Measured("ours", unavailable="out of memory")
    assert theirs == Measured("theirs", seconds=2.0, spread=0.0)


def make_case(name, made):
    def warm_up():
        if name == "missing":
            raise ModuleNotFoundError("No module named 'missing'")
        return torch.nn.Linear(2, 2), torch.randn(1, 2)

    def prepare():
        made.append(name)
        if name == "huge":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.nn.Linear(2, 2), torch.randn(1, 2)

    return Case(name, 1000, prepare, warm_up)


@pytest.fixture
def measure():
    return partial(
        measure_group, device="cpu", dtype=torch.float32, seconds=0.0, progress=lambda note: None
    )


@pytest.mark.parametrize(("pass_name", "work"), [(FORWARD, 1000), (FORWARD_BACKWARD, 3000)])
def test_work_is_measured_by_the_product_of_the_same_rounds(
    pass_name, work, small, measure, monkeypatch
):
    given = {}

    def turns(cases, seconds):
        given.update(cases)
        return {name: Timing(0.25 if name == "a" else 0.5, 0.0, 9) for name in cases}

    monkeypatch.setattr(measuring, "take_turns", turns)
    group = measure([make_case("a", []), make_case("b", [])], pass_name)
    assert {"a", "b"} < given.keys()
    assert [type(case) for case in given.values()].count(MatrixProduct) == 1
    peak = 2 * 8**3 / 0.5
    assert (group.rounds, group.pass_name) == (9, pass_name)
    assert group.peak_operations_per_second == peak
    assert [result.ratio for result in group.results] == [1.0, 2.0]
    assert group.results[0].utilization == pytest.approx(work / 0.25 / peak)


def test_what_is_missing_is_not_made(small, measure):
    made = []
    cases = [make_case("a", made), make_case("missing", made)]
    group = measure(cases, FORWARD)
    assert made == ["a"]
    assert group.rounds == 3
    assert group.results[0].seconds > 0
    assert group.results[1] == Measured("missing", unavailable="not installed")


def test_what_cannot_be_made_is_a_result(small, measure):
    group = measure([make_case("huge", []), make_case("b", [])], FORWARD)
    assert group.results[0].unavailable == "out of memory"
    assert group.results[1].seconds > 0
    assert group.results[1].ratio is None


def test_no_memory_no_time(small, measure, monkeypatch):
    # What the system killed for its memory would take this process with it.
    def killed(*_):
        raise MemoryError

    monkeypatch.setattr(measuring, "memory_on_cpu", killed)
    made = []
    group = measure([make_case("a", made)], FORWARD)
    assert made == []
    assert group.results == [Measured("a", unavailable="out of memory")]
    assert (group.rounds, group.peak_operations_per_second) == (0, None)
