"""The chunked implementation is the reference: values, gradients, precision."""

import pytest
import torch
from torch.testing import assert_close

from botvision.attention import IMPLEMENTATIONS, chunked, decomposed_attention

# (elements of a block, fewest rows): with the real figures small maps are one block, so the
# loops over queries and over groups, with a ragged last block, only run with small ones.
BLOCKS = {"one_row": (1, 1), "five_rows": (1, 5), "several_groups": (150, 1), "real": None}

SIZES = [(1, 1), (1, 7), (9, 1), (2, 3), (5, 7), (13, 8)]

# The field's tolerances for outputs (faults.md). Gradients sum over N terms, hence the looser.
OUTPUT = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
    torch.float32: {"rtol": 1.3e-6, "atol": 1e-5},
    torch.float16: {"rtol": 1e-3, "atol": 1e-3},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1e-3},
}
GRADIENT = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-11},
    torch.float32: {"rtol": 1.3e-5, "atol": 3e-5},
}


@pytest.fixture(params=BLOCKS, ids=str)
def blocks(request, monkeypatch):
    if BLOCKS[request.param] is not None:
        elements, rows = BLOCKS[request.param]
        monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", {"cpu": elements, "cuda": elements})
        monkeypatch.setattr(chunked, "_SMALLEST_BLOCK_ROWS", rows)


def run(inputs, size, impl, *, content=True, scale=None):
    """Output, and the gradient of every input, for a cotangent that is the same for all."""
    leaves = {name: t for name, t in inputs.items() if t is not None}
    out = decomposed_attention(**inputs, size=size, content=content, scale=scale, impl=impl)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    grads = torch.autograd.grad(out, list(leaves.values()), cotangent, allow_unused=True)
    return out.detach(), dict(zip(leaves, grads, strict=True))


def assert_equal_to_reference(inputs, size, **options):
    expected, expected_grads = run(inputs, size, "reference", **options)
    actual, actual_grads = run(inputs, size, "chunked", **options)
    dtype = expected.dtype
    assert_close(actual, expected, **OUTPUT[dtype])
    assert actual_grads.keys() == expected_grads.keys()
    for name, grad in expected_grads.items():
        if grad is None:
            assert actual_grads[name] is None, name
        else:
            assert_close(actual_grads[name], grad, **GRADIENT[dtype], msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_reference_at_any_size(size, dtype, blocks, make_inputs):
    assert_equal_to_reference(make_inputs(size, dtype=dtype), size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_reference_at_40x56(dtype, make_inputs):
    # 2240 positions: several real blocks, the last of them ragged.
    inputs = make_inputs((40, 56), batch=1, heads=1, dim=16, dtype=dtype)
    assert_equal_to_reference(inputs, (40, 56))


@pytest.mark.parametrize("content", [True, False], ids=["content", "no_content"])
@pytest.mark.parametrize("bias_w", [True, False], ids=["w", "no_w"])
@pytest.mark.parametrize("bias_h", [True, False], ids=["h", "no_h"])
def test_equals_reference_with_any_part_left_out(bias_h, bias_w, content, blocks, make_inputs):
    inputs = make_inputs((4, 5), bias_h=bias_h, bias_w=bias_w, dtype=torch.float32)
    assert_equal_to_reference(inputs, (4, 5), content=content, scale=0.7)


def test_values_of_another_width(blocks, make_inputs):
    assert_equal_to_reference(make_inputs((3, 4), dim=4, value_dim=7), (3, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(2, 2), (5, 7), (12, 9)], ids=str)
def test_no_less_precise_than_reference(size, dtype, blocks, make_inputs):
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


def test_many_blocks_add_up_in_float32(monkeypatch, make_inputs):
    # 576 terms added one after the other in bfloat16 would be several times less precise.
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(chunked, "_SMALLEST_BLOCK_ROWS", 1)
    size = (24, 24)
    inputs = make_inputs(size, batch=1, heads=1, dtype=torch.bfloat16)
    exact = {name: t.detach().double().requires_grad_() for name, t in inputs.items()}
    _, truth = run(exact, size, "reference")
    _, expected = run(inputs, size, "reference")
    _, actual = run(inputs, size, "chunked")
    for name in ("k", "v"):
        error, allowed = ((g[name].double() - truth[name]).abs().mean() for g in (actual, expected))
        assert error <= 1.5 * allowed, name


@pytest.mark.parametrize("dtype", OUTPUT, ids=str)
def test_one_position_passes_its_value_on(dtype, make_inputs):
    inputs = make_inputs((1, 1), dtype=dtype)
    out, grads = run(inputs, (1, 1), "chunked")
    assert_close(out, inputs["v"].detach(), rtol=0, atol=0)
    # Nothing else matters: what the other gradients hold is rounding.
    for name in ("q", "k", "bias_h", "bias_w"):
        assert grads[name].abs().max() <= 4 * torch.finfo(dtype).eps, name


def test_non_contiguous_inputs(blocks, make_inputs):
    size, n = (3, 5), 15
    base = torch.randn(2, n, 3, 2, 4, dtype=torch.float64)  # as the layer's projection lays it out
    q, k, v = (t.requires_grad_() for t in base.permute(2, 0, 3, 1, 4))
    bias_h = torch.randn(3, n, dtype=torch.float64).t().expand(2, 2, n, 3).requires_grad_()
    bias_w = torch.randn(2, 2, n, 10, dtype=torch.float64)[..., ::2].requires_grad_()
    inputs = {"q": q, "k": k, "v": v, "bias_h": bias_h, "bias_w": bias_w}
    assert not any(t.is_contiguous() for t in inputs.values())
    assert_equal_to_reference(inputs, size)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_expanded_gradient(impl, make_inputs):
    # sum() hands back a gradient of stride 0.
    inputs = make_inputs((2, 3))
    decomposed_attention(**inputs, size=(2, 3), impl=impl).sum().backward()
    # Rows of probabilities sum to one, so the values' gradients add up to the queries' number.
    assert_close(inputs["v"].grad.sum(dim=2), torch.full((2, 2, 4), 6.0, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_logits_stay_finite(dtype, blocks, make_inputs):
    size = (4, 3)
    inputs = make_inputs(size, dtype=dtype)
    with torch.no_grad():
        # Whole numbers, so that rounding cannot make the two differ.
        for name in ("bias_h", "bias_w"):
            inputs[name].copy_(inputs[name].sign() * 1e4)
        inputs["q"].copy_(inputs["q"].sign() * 100)
        inputs["k"].copy_(inputs["k"].sign() * 25)
    out, grads = run(inputs, size, "chunked", scale=1.0)
    expected, expected_grads = run(inputs, size, "reference", scale=1.0)
    assert out.isfinite().all()
    assert_close(out, expected)
    for name, grad in grads.items():
        assert grad.isfinite().all(), name
        # The saved log-sum-exp of a row of such logits has an absolute error of eps * 1e4, and
        # queries and keys multiply it by up to 100.
        atol = torch.finfo(dtype).eps * 1e4 * 100
        assert_close(grad, expected_grads[name], rtol=1e-3, atol=atol)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_batch_of_none(impl, make_inputs):
    inputs = make_inputs((2, 3), batch=0)
    out = decomposed_attention(**inputs, size=(2, 3), impl=impl)
    assert out.shape == (0, 2, 6, 4)
    out.sum().backward()
    assert all(t.grad.shape == t.shape for t in inputs.values())


@pytest.mark.parametrize(
    ("bias", "content"),
    [(b, True) for b in ("both", "h", "w", "none")] + [(b, False) for b in ("both", "h", "w")],
)
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_gradcheck(impl, bias, content, monkeypatch, make_inputs):
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(chunked, "_SMALLEST_BLOCK_ROWS", 4)
    inputs = make_inputs(
        (2, 3), batch=1, dim=3, bias_h=bias in ("both", "h"), bias_w=bias in ("both", "w")
    )
    if not content:  # neither takes part, and gradcheck wants every input to
        inputs["q"], inputs["k"] = inputs["q"].detach(), inputs["k"].detach()

    def function(q, k, v, bias_h, bias_w):
        return decomposed_attention(
            q, k, v, bias_h, bias_w, size=(2, 3), content=content, impl=impl
        )

    assert torch.autograd.gradcheck(function, tuple(inputs.values()), atol=1e-5)


def test_second_derivative_is_an_error_not_a_wrong_number(make_inputs):
    inputs = make_inputs((2, 3))
    out = decomposed_attention(**inputs, size=(2, 3), impl="chunked")
    (grad,) = torch.autograd.grad(out.square().sum(), inputs["q"], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.square().sum().backward()


def test_autocast_does_not_reach_into_the_blocks(make_inputs):
    inputs = make_inputs((5, 7), dtype=torch.float32)
    plain, plain_grads = run(inputs, (5, 7), "chunked")
    with torch.autocast("cpu", torch.bfloat16):
        cast, cast_grads = run(inputs, (5, 7), "chunked")
    assert_close(cast, plain, rtol=0, atol=0)
    assert_close(cast_grads, plain_grads, rtol=0, atol=0)
