"""Passes, turns and memory."""

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from botvision.benchmark import measuring
from botvision.benchmark.attention_layers import prepare_layer
from botvision.benchmark.measuring import (
    FORWARD,
    FORWARD_BACKWARD,
    MatrixProduct,
    Timing,
    memory_on_cpu,
    reason_of,
    run_pass,
    take_turns,
)


class Clock:
    """A clock that stands still but for what the cases take."""

    def __init__(self):
        self.now = 0.0
        self.turns = []

    def case(self, name, seconds):
        def run():
            self.turns.append(name)
            self.now += seconds

        return run


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock.now)
    return clock


def test_cases_take_turns_in_changing_order(clock):
    names = ["a", "b", "c", "d", "e"]
    results = take_turns({name: clock.case(name, 1.0) for name in names}, 0.0)
    rounds = [clock.turns[i : i + 5] for i in range(0, len(clock.turns), 5)]
    assert len(rounds) == 4, "one to warm up and the least number of counted ones"
    assert [sorted(each) for each in rounds] == [names] * 4
    assert len({tuple(each) for each in rounds}) > 1
    assert results == dict.fromkeys(names, Timing(1.0, 0.0, 3))


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 3), (11.9, 3), (12, 4), (15, 5), (1e9, 100)])
def test_rounds_fit_the_budget(seconds, rounds, clock):
    results = take_turns({"a": clock.case("a", 1.0), "b": clock.case("b", 2.0)}, seconds)
    assert results == {"a": Timing(1.0, 0.0, rounds), "b": Timing(2.0, 0.0, rounds)}


def test_the_first_round_does_not_count(clock):
    slow_once = iter([100.0, 1.0, 2.0, 3.0])

    def run():
        clock.now += next(slow_once)

    assert take_turns({"a": run}, 0.0) == {"a": Timing(2.0, 0.5, 3)}


@pytest.mark.parametrize("good_turns", [0, 2])
def test_a_case_that_raises_takes_no_further_turn(good_turns, clock):
    def run():
        clock.turns.append("bad")
        if clock.turns.count("bad") > good_turns:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    results = take_turns({"bad": run, "good": clock.case("good", 1.0)}, 0.0)
    assert results == {"bad": "out of memory", "good": Timing(1.0, 0.0, 3)}
    assert clock.turns.count("bad") == good_turns + 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (ValueError("impl: needs a GPU\nand more"), "not available: impl: needs a GPU"),
        (NotImplementedError(), "not available: NotImplementedError"),
    ],
)
def test_reason(error, reason):
    assert reason_of(error) == reason


def test_median_and_spread():
    assert Timing.of([4.0, 1.0, 3.0, 2.0, 100.0]) == Timing(3.0, 2 / 3, 5)


class Watched(nn.Linear):
    def forward(self, x):
        self.recording = torch.is_grad_enabled()
        return super().forward(x)


def test_forward_keeps_nothing_for_a_backward_pass():
    network, x = Watched(2, 3), torch.randn(4, 2, requires_grad=True)
    run_pass(network, x, FORWARD)
    assert not network.recording
    assert x.grad is None
    assert network.weight.grad is None


def test_forward_and_backward_gives_every_gradient_once():
    network, x = Watched(2, 3), torch.randn(4, 2, requires_grad=True)
    for _ in range(2):  # those of the first time are forgotten
        run_pass(network, x, FORWARD_BACKWARD)
    torch.testing.assert_close(x.grad, network.weight.sum(0).expand(4, 2))
    torch.testing.assert_close(network.weight.grad, x.sum(0).expand(3, 2))


def test_input_without_gradient():
    network, x = Watched(2, 3), torch.randn(4, 2)
    run_pass(network, x, FORWARD_BACKWARD)
    assert x.grad is None
    assert network.weight.grad is not None


def test_matrix_product(monkeypatch):
    monkeypatch.setattr(measuring, "_PRODUCT_SIDES", {"cpu": 16})
    product = MatrixProduct("cpu", torch.bfloat16)
    product()
    assert product.operations == 2 * 16**3
    assert product._out.dtype == torch.bfloat16
    torch.testing.assert_close(product._out, product._left @ product._right)


def prepare(name, size):
    """Picklable, as the test's own functions are not in another process."""
    return partial(
        prepare_layer,
        name,
        size,
        batch=1,
        heads=4,
        head_dim=8,
        dtype=torch.float32,
        device="cpu",
    )


FRESH = """
import json
from functools import partial
import torch
from botvision.benchmark.attention_layers import prepare_layer
from botvision.benchmark.measuring import PASSES, memory_on_cpu

torch.ones(2**28)  # now larger than its children will be, which must not hide what these add
options = {"batch": 1, "heads": 4, "head_dim": 8, "dtype": torch.float32, "device": "cpu"}
prepare, warm_up = (partial(prepare_layer, "reference", (n, n), **options) for n in (32, 4))
print(json.dumps([memory_on_cpu(prepare, warm_up, pass_name) for pass_name in PASSES]))
"""


def test_memory_of_a_fresh_process():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logits = 4 * 1024**2 * 4
    forward, both = json.loads(done.stdout)
    assert 2 * logits <= forward < 12 * logits
    assert 2 * logits <= both < 12 * logits


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        (prepare("nonsense", (4, 4)), "not available: impl: expected one of auto, "),
        (partial(os._exit, 3), "not available: its process ended with status 3"),
        (partial(signal.raise_signal, signal.SIGKILL), "out of memory"),
    ],
    ids=["raises", "exits", "killed"],
)
def test_memory_of_a_case_that_fails(fails, reason):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        memory_on_cpu(fails, fails, FORWARD)
    assert reason_of(caught.value).startswith(reason)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_on_a_gpu():
    layer, x = prepare_layer(
        "reference", (32, 32), batch=1, heads=4, head_dim=8, dtype=torch.float32, device="cuda"
    )
    run_pass(layer, x, FORWARD)
    added = measuring.memory_on_gpu(layer, x, FORWARD)
    logits = 4 * 1024**2 * 4
    assert 2 * logits <= added < 12 * logits
