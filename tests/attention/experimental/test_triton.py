"""The Triton kernels are the reference, in Triton's interpreter on the CPU.

Triton decides on its import whether kernels are interpreted or compiled. So this file is also a
script: the tests run it once, in a fresh process, and read what its cases report.
"""

import importlib.util
import json
import os
import subprocess
import sys
import traceback
import warnings

import pytest
import torch
from torch.testing import assert_close

from botvision.attention.experimental.triton_attention import triton_attention
from botvision.attention.operation import Operands
from botvision.attention.reference import reference_attention

NAMES = ("q", "k", "v", "bias_h", "bias_w")

# The tolerance of the other implementations for gradients, which sum over N terms.
FLOAT32 = {"rtol": 1.3e-5, "atol": 3e-5}


def make_inputs(size, *, batch=1, heads=2, dim=4, value_dim=None, dtype=torch.float32, without=()):
    generator = torch.Generator().manual_seed(0)
    height, width = size
    widths = dict(zip(NAMES, (dim, dim, value_dim or dim, height, width), strict=True))

    def draw(last):
        shape = (batch, heads, height * width, last)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    drawn = {name: draw(last) for name, last in widths.items()}
    return {name: None if name in without else t for name, t in drawn.items()}


def attend(inputs):
    return triton_attention(Operands(**inputs, size=(2, 3), scale=1.0, content=True))


def run(function, inputs, size, *, scale=0.7, content=True, dtype=None):
    """Output and gradients, None where there is none, of the inputs in ``dtype`` if given."""
    leaves = {
        name: None if t is None else t.detach().to(dtype or t.dtype).requires_grad_()
        for name, t in inputs.items()
    }
    if dtype is None:  # a cast would have made them contiguous
        for name, leaf in leaves.items():
            assert leaf is None or leaf.stride() == inputs[name].stride()
    out = function(Operands(**leaves, size=size, scale=scale, content=content))
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    given = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    grads = torch.autograd.grad(out, list(given.values()), cotangent, allow_unused=True)
    return {"out": out.detach(), **dict(zip(given, grads, strict=True))}


def check(inputs, size, *, tolerance=FLOAT32, **options):
    """The reference in float64 is the truth; narrow dtypes may err as the reference in them does.

    Twice as much is allowed: the interpreter rounds bfloat16 towards zero, as GPUs do not.
    """
    dtype = inputs["q"].dtype
    truth = run(reference_attention, inputs, size, dtype=torch.float64, **options)
    expected = run(reference_attention, inputs, size, **options)
    actual = run(triton_attention, inputs, size, **options)
    assert actual.keys() == truth.keys()
    for name, true in truth.items():
        if true is None:
            assert actual[name] is None, name
            continue
        assert actual[name].dtype == dtype, name
        assert actual[name].isfinite().all(), name
        if dtype == torch.float32:
            assert_close(actual[name].double(), true, **tolerance, msg=lambda m, n=name: n + m)
        else:
            error, allowed = ((t[name] - true).abs().mean() for t in (actual, expected))
            assert error <= 2 * allowed, (name, error, allowed)


def check_views():
    """As the layer's projection lays them out, and with a last stride other than one."""
    base = torch.randn(2, 15, 3, 2, 20, generator=torch.Generator().manual_seed(0))
    q, k, v = base.permute(2, 0, 3, 1, 4)
    bias_h = torch.randn(3, 15).t().expand(2, 2, 15, 3)
    bias_w = torch.randn(2, 2, 15, 10)[..., ::2]
    check({"q": q, "k": k, "v": v, "bias_h": bias_h, "bias_w": bias_w}, (3, 5))
    channels_first = base.permute(0, 2, 3, 4, 1).contiguous().permute(1, 0, 2, 4, 3)
    q, k, v = channels_first
    assert q.stride(-1) != 1
    check({"q": q, "k": k, "v": v, "bias_h": bias_h, "bias_w": bias_w}, (3, 5))


def check_expanded_gradient():
    inputs = {name: t.requires_grad_() for name, t in make_inputs((2, 3)).items()}
    attend(inputs).sum().backward()
    # Rows of probabilities sum to one, so the values' gradients add up to the queries' number.
    assert_close(inputs["v"].grad.sum(dim=2), torch.full((1, 2, 4), 6.0))


def check_extreme_logits():
    inputs = make_inputs((4, 3))
    for name, factor in (("bias_h", 1e4), ("bias_w", 1e4), ("q", 100), ("k", 25)):
        inputs[name] = inputs[name].sign() * factor
    # The saved log-sum-exp of a row of such logits has an absolute error of eps * 1e4, and
    # queries and keys multiply it by up to 100.
    atol = torch.finfo(torch.float32).eps * 1e4 * 100
    check(inputs, (4, 3), scale=1.0, tolerance={"rtol": 1e-3, "atol": atol})


def check_masked_tiles():
    """A bias of -inf hides whole tiles, the first among them."""
    size = (40, 2)
    inputs = make_inputs(size)
    inputs["bias_h"][..., :20] = -torch.inf
    check(inputs, size)


def check_empty_batch():
    inputs = {name: t.requires_grad_() for name, t in make_inputs((2, 3), batch=0).items()}
    out = attend(inputs)
    assert out.shape == (0, 2, 6, 4)
    out.sum().backward()
    assert all(t.grad.shape == t.shape for t in inputs.values())


def check_determinism():
    inputs = make_inputs((3, 40), heads=1, dtype=torch.float16)
    first, second = (run(triton_attention, inputs, (3, 40)) for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)


def check_second_derivative():
    inputs = {name: t.requires_grad_() for name, t in make_inputs((2, 3)).items()}
    out = attend(inputs)
    (grad,) = torch.autograd.grad(out.square().sum(), inputs["q"], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        grad.square().sum().backward()


def check_operators():
    # opcheck itself looks for gradients of tensors that are not leaves.
    warnings.filterwarnings("ignore", message="The .grad attribute", category=UserWarning)
    for without, content in (((), True), (("bias_h",), True), (("bias_w",), False)):
        inputs = make_inputs((2, 3), without=without)
        leaves = [None if t is None else t.requires_grad_() for t in inputs.values()]
        arguments = (leaves[:3], *leaves[3:], (2, 3), 0.5, content)
        torch.library.opcheck(torch.ops.botvision.triton_attention, arguments)
        with torch.no_grad():
            saved = torch.ops.botvision.triton_attention(*arguments)
        torch.library.opcheck(
            torch.ops.botvision.triton_attention_backward,
            (torch.ones_like(saved[0]), *saved, *arguments),
            test_utils=("test_schema", "test_faketensor"),
        )


def check_compile():
    inputs = make_inputs((2, 3), without=("bias_w",))
    compiled = torch.compile(triton_attention, fullgraph=True, backend="aot_eager")
    expected = run(triton_attention, inputs, (2, 3))
    assert_close(run(compiled, inputs, (2, 3)), expected, rtol=0, atol=0)


def sized(size, **options):
    return lambda: check(make_inputs(size, **options), size)


def partial(without, content):
    inputs = make_inputs((4, 5), without=without)
    return lambda: check(inputs, (4, 5), content=content)


CASES = {
    **{f"{h}x{w}": sized((h, w)) for h, w in ((1, 1), (1, 7), (9, 1), (5, 7), (13, 8))},
    "16x16": sized((16, 16), heads=1),
    "3x130": sized((3, 130), heads=1),
    "float16": sized((5, 7), dim=16, dtype=torch.float16),
    "float16, tiles of columns": sized((2, 40), dim=16, heads=1, dtype=torch.float16),
    "bfloat16": sized((5, 7), dim=16, dtype=torch.bfloat16),
    "bfloat16, tiles of columns": sized((2, 40), dim=16, heads=1, dtype=torch.bfloat16),
    "heads of 20": sized((3, 4), dim=20),
    "heads of 33, values of 7": sized((3, 4), dim=33, value_dim=7),
    "heads of 7, values of 33": sized((3, 4), dim=7, value_dim=33, batch=2),
    "heads of 130": sized((3, 4), dim=130),
    **{
        f"without {without or 'nothing'}, content {content}": partial(without, content)
        for without in ((), ("bias_h",), ("bias_w",), ("bias_h", "bias_w"))
        for content in (True, False)
    },
    "views": check_views,
    "expanded gradient": check_expanded_gradient,
    "extreme logits": check_extreme_logits,
    "masked tiles": check_masked_tiles,
    "empty batch": check_empty_batch,
    "determinism": check_determinism,
    "second derivative": check_second_derivative,
    "operators": check_operators,
    "torch.compile": check_compile,
}


def multiply_bfloat16():
    """Teach Triton's interpreter, which holds bfloat16 as its bits, to multiply it."""
    import numpy
    from triton.language import bfloat16, float32
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    multiply = InterpreterBuilder.create_dot

    def widen(handle):
        if handle.dtype.scalar != bfloat16:
            return handle
        return TensorHandle((handle.data.astype(numpy.uint32) << 16).view(numpy.float32), float32)

    def create_dot(self, a, b, *rest):
        return multiply(self, widen(a), widen(b), *rest)

    InterpreterBuilder.create_dot = create_dot


def report(cases):
    """Print what went wrong in each case, None where nothing did."""
    warnings.simplefilter("error")
    failures = {}
    for name, case in cases.items():
        failures[name] = None
        try:
            case()
        except Exception:
            failures[name] = traceback.format_exc()
    print(json.dumps(failures))


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_is_the_reference_in_the_interpreter(case, interpreted):
    assert interpreted[case] is None, interpreted[case]


def test_float64_is_an_error():
    inputs = make_inputs((2, 3), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"expected one of torch\.float16.*got torch\.float64"):
        attend(inputs)


def test_heads_too_wide_are_an_error():
    with pytest.raises(ValueError, match="at most 256 wide, got 257"):
        attend(make_inputs((2, 3), value_dim=257))


def test_tensors_on_the_cpu_are_an_error(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="expected tensors on a GPU, got cpu"):
        attend(make_inputs((2, 3)))


def test_missing_triton_is_named(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(
        sys.modules, "botvision.attention.experimental.triton_kernels", raising=False
    )
    with pytest.raises(ImportError, match="expected the package triton"):
        attend(make_inputs((2, 3)))


def test_meta_tensors_need_no_gpu():
    inputs = {name: t.to("meta") for name, t in make_inputs((2, 3), value_dim=7).items()}
    out = attend(inputs)
    assert out.shape == (1, 2, 6, 7)


if __name__ == "__main__":
    multiply_bfloat16()
    report(CASES)
