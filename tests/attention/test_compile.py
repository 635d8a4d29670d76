"""``torch.compile`` takes every implementation whole, at any size."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from botvision.attention import decomposed_attention

SIZE = (3, 4)


@pytest.fixture
def compiled():
    """The function compiled, and ``frame_count`` of the graphs made so far."""
    torch.compiler.reset()
    # aot_eager traces forward and backward, but needs no C++ compiler.
    counter = CompileCounterWithBackend("aot_eager")
    attend = torch.compile(decomposed_attention, backend=counter, fullgraph=True)
    yield attend, counter
    torch.compiler.reset()


def test_one_graph_at_any_size(impl, compiled, run, assert_step_close, make_inputs):
    attend, counter = compiled
    for size in (SIZE, (5, 4), (7, 9), (2, 6)):
        inputs = make_inputs(size)
        expected = run(inputs, size, impl)
        assert_step_close(run(inputs, size, impl, attend=attend), expected)
    # One for the first size alone, one for any height, one for any size.
    assert counter.frame_count <= 3


@pytest.mark.parametrize(
    "options",
    [
        {"bias_h": False, "batch": 1},
        {"bias_h": False, "bias_w": False, "value_dim": 7},
    ],
    ids=str,
)
def test_any_part_left_out(options, impl, compiled, run, assert_step_close, make_inputs):
    attend, _ = compiled
    inputs = make_inputs(SIZE, **options)
    for content in (True, False):
        expected = run(inputs, SIZE, impl, content=content)
        actual = run(inputs, SIZE, impl, content=content, attend=attend)
        assert_step_close(actual, expected)


def test_default_implementation(compiled, run, assert_step_close, make_inputs):
    attend, _ = compiled
    inputs = make_inputs(SIZE)
    assert_step_close(run(inputs, SIZE, "auto", attend=attend), run(inputs, SIZE, "auto"))
