"""Every implementation that runs here computes what the reference does, forward and backward."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from botvision.attention import IMPLEMENTATIONS, chunked, decomposed_attention
from botvision.attention.operation import softmax_dtype

# How the numbers of [B, heads, N, d] lie in memory.
LAYOUTS = {
    "contiguous": lambda t: t,
    "heads_last": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),  # the layer's
    "width_first": lambda t: t.mT.contiguous().mT,
    "every_other": lambda t: torch.stack([t, -t], -1)[..., 0],
    "shared_by_heads": lambda t: t[:1, :1].expand(t.shape),
    "shared_by_positions": lambda t: t[:, :, :1].expand(t.shape),
}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
NAMES = ("q", "k", "v", "bias_h", "bias_w", "cotangent")


class Problem(NamedTuple):
    size: tuple[int, int]
    batch: int
    heads: int
    dim: int
    value_dim: int
    dtype: torch.dtype
    has_bias_h: bool
    has_bias_w: bool
    layouts: dict[str, str]
    options: dict[str, Any]
    block: tuple[int, int]
    seed: int

    def tensors(self, dtype=None):
        """Inputs as leaves, and the gradient of the output; in another dtype the same numbers."""
        generator = torch.Generator().manual_seed(self.seed)
        height, width = self.size
        widths = (self.dim, self.dim, self.value_dim, height, width, self.value_dim)
        tensors = {}
        for name, last in zip(NAMES, widths, strict=True):
            shape = (self.batch, self.heads, height * width, last)
            values = torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype)
            tensors[name] = LAYOUTS[self.layouts[name]](values.to(dtype or self.dtype))
        cotangent = tensors.pop("cotangent")
        inputs = {name: t.requires_grad_() for name, t in tensors.items()}
        for name, is_there in (("bias_h", self.has_bias_h), ("bias_w", self.has_bias_w)):
            inputs[name] = inputs[name] if is_there else None
        return inputs, cotangent


side = st.integers(1, 9)
larger = st.sampled_from([(1, 70), (23, 2), (16, 17), (31, 1), (20, 20)])
problems = st.builds(
    Problem,
    size=st.tuples(side, side) | st.tuples(side, side) | st.tuples(side, side) | larger,
    batch=st.integers(0, 3),
    heads=st.integers(1, 3),
    dim=st.integers(1, 9),
    value_dim=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    has_bias_h=st.booleans(),
    has_bias_w=st.booleans(),
    layouts=st.fixed_dictionaries({name: st.sampled_from(sorted(LAYOUTS)) for name in NAMES}),
    options=st.fixed_dictionaries(
        {
            "content": st.booleans(),
            "scale": st.none() | st.floats(-1, 1, allow_subnormal=False),
        }
    ),
    # (elements, fewest rows) of a block of the chunked implementation.
    block=st.tuples(st.sampled_from([1, 50, 1000, 2**21]), st.integers(1, 40)),
    seed=st.integers(0, 9),
)


def test_no_implementation_is_forgotten(on_cpu, on_gpu_only):
    # One that is in neither list of conftest.py would not be tested.
    assert set(IMPLEMENTATIONS) <= {*on_cpu, *on_gpu_only}
    assert not set(on_cpu) & set(on_gpu_only)


@settings(max_examples=250, derandomize=True, deadline=None, database=None)
@given(problems)
def test_any_problem(on_cpu, run, assert_step_close, problem):
    options = {**problem.options, "size": problem.size}
    inputs, cotangent = problem.tensors()
    reference, *others = on_cpu
    expected = run(inputs, impl=reference, cotangent=cotangent, **options)
    is_half = problem.dtype in (torch.bfloat16, torch.float16)
    if is_half:
        # The truth is the reference in float64 on the very numbers that the narrow dtype holds.
        exact, exact_cotangent = problem.tensors(torch.float64)
        truth = run(exact, impl=reference, cotangent=exact_cotangent, **options)
    elements, rows = problem.block
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chunked._BLOCK_ELEMENTS, "cpu", elements)
        patch.setattr(chunked, "_SMALLEST_BLOCK_ROWS", rows)
        for impl in others:
            actual = run(inputs, impl=impl, cotangent=cotangent, **options)
            if is_half:
                assert_no_less_precise(actual, expected, truth)
            else:
                assert_step_close(actual, expected)


def assert_no_less_precise(actual, expected, truth):
    """The mean error is at most ten times the reference's, the field's bound (faults.md)."""
    (out, grads), (expected_out, expected_grads), (true_out, true_grads) = actual, expected, truth
    compared = [("output", out, expected_out, true_out)]
    compared += [
        (name, grads[name], expected_grads[name], true)
        for name, true in true_grads.items()
        if true is not None  # takes no part
    ]
    for name, ours, reference, true in compared:
        assert ours.dtype == reference.dtype
        assert ours.shape == true.shape
        if true.numel() == 0:
            continue
        error, allowed = ((t.double() - true).abs().mean() for t in (ours, reference))
        # The reference may be exact by luck; the result's own rounding is granted. Where the
        # formula gives zero (a single position, or row) the terms that cancel leave theirs.
        size = true.abs().mean()
        rounding = torch.finfo(ours.dtype).eps * (size if size > 1e-9 else 1)
        assert error <= 10 * allowed + rounding, name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extreme_logits_stay_finite(impl, dtype, run, make_inputs):
    size = (4, 3)
    inputs = make_inputs(size, dtype=dtype)
    with torch.no_grad():
        # Powers of two, so that no dtype rounds a logit: the biases add 8192, the content as much.
        for name, magnitude in (("bias_h", 2**13), ("bias_w", 2**13), ("q", 64), ("k", 32)):
            inputs[name].copy_(inputs[name].sign() * magnitude)
    out, grads = run(inputs, size, impl, scale=1.0)
    exact = {name: t.detach().double().requires_grad_() for name, t in inputs.items()}
    truth, true_grads = run(exact, size, "reference", scale=1.0)
    # What is left to round are the probabilities of the keys that share the largest logit.
    eps = torch.finfo(dtype).eps
    assert out.isfinite().all()
    assert_close(out.double(), truth, rtol=2 * eps, atol=4 * eps)
    rounding = 8 * eps
    if impl == "fused":
        # torch's backward pass takes the probabilities from a saved log-sum-exp, and one of such
        # logits is no more precise than they are.
        rounding += 3 * 2**13 * torch.finfo(softmax_dtype(dtype)).eps
    # The gradients of queries and keys are sums of multiples of each other.
    for name, factor in (("q", 32), ("k", 64), ("v", 1), ("bias_h", 1), ("bias_w", 1)):
        assert grads[name].isfinite().all(), name
        difference = (grads[name].double() - true_grads[name]).abs().max()
        assert difference <= rounding * max(factor, true_grads[name].abs().max()), name


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logits_that_are_all_extreme_cancel(impl, dtype, sign, run, make_inputs):
    # exp(1e4) overflows every dtype and exp(-1e4) leaves nothing to divide by; a softmax only
    # sees differences.
    inputs = make_inputs((2, 3), bias_w=False, dtype=dtype)
    with torch.no_grad():
        inputs["bias_h"].fill_(sign * 1e4)
    out, grads = run(inputs, (2, 3), impl, content=False)
    mean = inputs["v"].detach().double().mean(2, keepdim=True).expand(out.shape)
    eps = torch.finfo(dtype).eps
    assert_close(out.double(), mean, rtol=2 * eps, atol=2 * eps)
    assert all(g.isfinite().all() for g in grads.values() if g is not None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_position_passes_its_value_on(impl, dtype, run, make_inputs):
    inputs = make_inputs((1, 1), dtype=dtype)
    out, grads = run(inputs, (1, 1), impl)
    assert_close(out, inputs["v"].detach(), rtol=0, atol=0)
    # Nothing else matters: what the other gradients hold is rounding.
    for name in ("q", "k", "bias_h", "bias_w"):
        assert grads[name].abs().max() <= 4 * torch.finfo(dtype).eps, name


def test_expanded_gradient(impl, make_inputs):
    # sum() hands back a gradient of stride 0.
    inputs = make_inputs((2, 3))
    decomposed_attention(**inputs, size=(2, 3), impl=impl).sum().backward()
    # Rows of probabilities sum to one, so the values' gradients add up to the queries' number.
    assert_close(inputs["v"].grad.sum(dim=2), torch.full((2, 2, 4), 6.0, dtype=torch.float64))


def test_batch_of_none(impl, make_inputs):
    inputs = make_inputs((2, 3), batch=0)
    out = decomposed_attention(**inputs, size=(2, 3), impl=impl)
    assert out.shape == (0, 2, 6, 4)
    out.sum().backward()
    assert all(t.grad.shape == t.shape for t in inputs.values())


def test_only_what_asks_for_a_gradient_gets_one(impl, make_inputs):
    for name in NAMES[:-1]:
        inputs = {n: t.detach().requires_grad_(n == name) for n, t in make_inputs((2, 3)).items()}
        decomposed_attention(**inputs, size=(2, 3), impl=impl).square().sum().backward()
        assert {n for n, t in inputs.items() if t.grad is not None} == {name}
        assert inputs[name].grad.any()


@pytest.mark.parametrize(
    ("bias", "content"),
    [(b, True) for b in ("both", "h", "w", "none")] + [(b, False) for b in ("both", "h", "w")],
)
def test_gradcheck(impl, bias, content, monkeypatch, make_inputs):
    monkeypatch.setitem(chunked._BLOCK_ELEMENTS, "cpu", 1)
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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_runs_give_the_same_bits(impl, dtype, monkeypatch, run, make_inputs):
    monkeypatch.setitem(chunked._BLOCK_ELEMENTS, "cpu", 1000)
    monkeypatch.setattr(chunked, "_SMALLEST_BLOCK_ROWS", 5)
    inputs = make_inputs((12, 9), dim=16, dtype=dtype)
    assert_close(run(inputs, (12, 9), impl), run(inputs, (12, 9), impl), rtol=0, atol=0)


@pytest.mark.parametrize("impl", ["chunked", "fused"])  # the reference leaves it to the BLAS
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "contiguous"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_do_not_depend_on_the_layout(impl, dtype, layout, run, make_inputs):
    size = (12, 9)
    inputs = make_inputs(size, dim=16, dtype=dtype)
    strided = {n: LAYOUTS[layout](t.detach()).requires_grad_() for n, t in inputs.items()}
    assert not any(t.is_contiguous() for t in strided.values())
    copied = {n: t.detach().contiguous().requires_grad_() for n, t in strided.items()}
    cotangent = LAYOUTS[layout](make_inputs(size, dim=16, dtype=dtype, seed=1)["q"].detach())
    assert_close(
        run(strided, size, impl, cotangent=cotangent),
        run(copied, size, impl, cotangent=cotangent.contiguous()),
        rtol=0,
        atol=0,
    )
