"""The chunked implementation is the reference at any size of map and of block."""

import pytest
import torch
from torch.testing import assert_close

from botvision.attention import chunked

# (elements of a block, fewest rows): with the real figures small maps are one block, so the
# loops over queries and over groups, with a ragged last block, only run with small ones.
BLOCKS = {"one_row": (1, 1), "five_rows": (1, 5), "several_groups": (150, 1), "real": None}

SIZES = [(1, 1), (1, 7), (9, 1), (2, 3), (5, 7), (13, 8)]

# The field's tolerances for outputs (faults.md).
OUTPUT = {
    torch.float32: {"rtol": 1.3e-6, "atol": 1e-5},
    torch.float16: {"rtol": 1e-3, "atol": 1e-3},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1e-3},
}


def set_blocks(monkeypatch, elements, rows):
    monkeypatch.setitem(chunked._BLOCK_ELEMENTS, "cpu", elements)
    monkeypatch.setattr(chunked, "_SMALLEST_BLOCK_ROWS", rows)


@pytest.fixture(params=BLOCKS, ids=str)
def blocks(request, monkeypatch):
    if BLOCKS[request.param] is not None:
        set_blocks(monkeypatch, *BLOCKS[request.param])


@pytest.fixture
def assert_equal_to_reference(run, assert_step_close):
    def check(inputs, size, **options):
        expected = run(inputs, size, "reference", **options)
        assert_step_close(run(inputs, size, "chunked", **options), expected)

    return check


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_reference_at_any_size(size, dtype, blocks, assert_equal_to_reference, make_inputs):
    assert_equal_to_reference(make_inputs(size, dtype=dtype), size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_reference_at_40x56(dtype, assert_equal_to_reference, make_inputs):
    # 2240 positions: several real blocks, the last of them ragged.
    n = 40 * 56
    assert n * n > 2 * chunked._BLOCK_ELEMENTS["cpu"]
    assert n % (chunked._BLOCK_ELEMENTS["cpu"] // n)
    inputs = make_inputs((40, 56), batch=1, heads=1, dim=16, dtype=dtype)
    assert_equal_to_reference(inputs, (40, 56))


@pytest.mark.parametrize("content", [True, False], ids=["content", "no_content"])
@pytest.mark.parametrize("bias_w", [True, False], ids=["w", "no_w"])
@pytest.mark.parametrize("bias_h", [True, False], ids=["h", "no_h"])
def test_equals_reference_with_any_part_left_out(
    bias_h, bias_w, content, blocks, assert_equal_to_reference, make_inputs
):
    inputs = make_inputs((4, 5), bias_h=bias_h, bias_w=bias_w, dtype=torch.float32)
    assert_equal_to_reference(inputs, (4, 5), content=content, scale=0.7)


def test_values_of_another_width(blocks, assert_equal_to_reference, make_inputs):
    assert_equal_to_reference(make_inputs((3, 4), dim=4, value_dim=7), (3, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(2, 2), (5, 7), (12, 9)], ids=str)
def test_no_less_precise_than_reference(size, dtype, blocks, run, make_inputs):
    inputs = make_inputs(size, dim=16, dtype=dtype)
    # The truth is the float64 reference on the very numbers that the narrow dtype holds.
    exact = {name: t.detach().double().requires_grad_() for name, t in inputs.items()}
    truth, truth_grads = run(exact, size, "reference")
    expected, expected_grads = run(inputs, size, "reference")
    actual, actual_grads = run(inputs, size, "chunked")
    assert actual.dtype == dtype
    # An element that nearly cancels may be as wrong as the reference's worst.
    field = OUTPUT[dtype]
    worst = (expected.double() - truth).abs().max().item()
    assert_close(actual.double(), truth, rtol=field["rtol"], atol=field["atol"] + worst)

    def error(tensor, true):
        return (tensor.double() - true).abs().mean().item()

    assert error(actual, truth) <= 10 * error(expected, truth)
    for name, grad in truth_grads.items():
        assert actual_grads[name].dtype == dtype
        assert error(actual_grads[name], grad) <= 10 * error(expected_grads[name], grad), name


def test_many_blocks_add_up_in_float32(monkeypatch, run, make_inputs):
    # 576 terms added one after the other in bfloat16 would be several times less precise.
    set_blocks(monkeypatch, 1, 1)
    size = (24, 24)
    inputs = make_inputs(size, batch=1, heads=1, dtype=torch.bfloat16)
    exact = {name: t.detach().double().requires_grad_() for name, t in inputs.items()}
    _, truth = run(exact, size, "reference")
    _, expected = run(inputs, size, "reference")
    _, actual = run(inputs, size, "chunked")
    for name in ("k", "v"):
        error, allowed = ((g[name].double() - truth[name]).abs().mean() for g in (actual, expected))
        assert error <= 1.5 * allowed, name


def test_content_larger_than_float16_is_scaled_first(run, make_inputs):
    # 256 * 256 * 4 is beyond float16, a sixteenth of it is not.
    inputs = make_inputs((2, 3), dtype=torch.float16)
    with torch.no_grad():
        for name in ("q", "k"):
            inputs[name].copy_(inputs[name].sign() * 256)
    expected, _ = run(inputs, (2, 3), "reference", scale=1 / 16)
    actual, grads = run(inputs, (2, 3), "chunked", scale=1 / 16)
    assert_close(actual, expected)
    assert all(grad.isfinite().all() for grad in grads.values())


def test_non_contiguous_inputs(blocks, assert_equal_to_reference):
    size, n = (3, 5), 15
    base = torch.randn(2, n, 3, 2, 4, dtype=torch.float64)  # as the layer's projection lays it out
    q, k, v = (t.requires_grad_() for t in base.permute(2, 0, 3, 1, 4))
    bias_h = torch.randn(3, n, dtype=torch.float64).t().expand(2, 2, n, 3).requires_grad_()
    bias_w = torch.randn(2, 2, n, 10, dtype=torch.float64)[..., ::2].requires_grad_()
    inputs = {"q": q, "k": k, "v": v, "bias_h": bias_h, "bias_w": bias_w}
    assert not any(t.is_contiguous() for t in inputs.values())
    assert_equal_to_reference(inputs, size)
