"""The public function: what it checks, its defaults, and the properties of its formula."""

import inspect
import itertools
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from botvision.attention import IMPLEMENTATIONS, decomposed_attention
from botvision.attention.decomposed_attention import automatic_implementation

SIZE = (3, 4)
N = 12


def test_default_is_automatic(make_inputs):
    inputs = make_inputs(SIZE)
    name = automatic_implementation(inputs["q"], inputs["v"], SIZE)
    for explicit in ({}, {"impl": "auto"}):
        out = decomposed_attention(**inputs, size=SIZE, **explicit)
        expected = decomposed_attention(**inputs, size=SIZE, impl=name)
        assert type(out.grad_fn) is type(expected.grad_fn)
        assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("device", "dtype", "size", "dim", "expected"),
    [
        ("cpu", torch.float32, (4, 4), 8, "chunked"),
        ("cpu", torch.bfloat16, (4, 4), 8, "chunked"),
        ("cuda", torch.float32, (4, 4), 8, "chunked"),
        ("cuda", torch.float16, (4, 4), 8, "fused"),
        ("cuda", torch.bfloat16, (64, 64), 128, "fused"),
        ("cuda", torch.bfloat16, (64, 65), 128, "chunked"),
        ("cuda", torch.bfloat16, (4, 4), 257, "chunked"),
    ],
)
def test_automatic_implementation(device, dtype, size, dim, expected):
    # Fake tensors have a device that this machine need not have.
    with FakeTensorMode():
        q = torch.empty(1, 1, size[0] * size[1], dim, dtype=dtype, device=device)
        assert automatic_implementation(q, q, size) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_automatic_implementation_is_never_experimental(device, dtype):
    with FakeTensorMode():
        for size, dim in itertools.product([(1, 1), (14, 14), (64, 64), (7, 200)], [1, 64, 300]):
            q = torch.empty(1, 1, size[0] * size[1], dim, dtype=dtype, device=device)
            assert automatic_implementation(q, q, size) not in ("flex", "triton")


def test_implementations_do_not_import_each_other():
    for name, function in IMPLEMENTATIONS.items():
        modules = {f.__module__ for other, f in IMPLEMENTATIONS.items() if other != name}
        source = Path(inspect.getfile(function)).read_text()
        assert not [module for module in modules if module in source], name


def test_automatic_implementation_looks_at_the_values_too():
    with FakeTensorMode():
        q, v = (torch.empty(1, 1, 4, d, dtype=torch.half, device="cuda") for d in (8, 300))
        assert automatic_implementation(q, v, (2, 2)) == "chunked"


def test_automatic_implementation_of_an_exported_model_is_the_reference(monkeypatch):
    q = torch.empty(1, 1, 4, 8)
    for module, name in ((torch.compiler, "is_exporting"), (torch.onnx, "is_in_onnx_export")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda: True)
            assert automatic_implementation(q, q, (2, 2)) == "reference"


def test_default_scale_is_that_of_the_head_width(impl, make_inputs):
    inputs = make_inputs(SIZE, dim=9)
    default = decomposed_attention(**inputs, size=SIZE, impl=impl)
    assert_close(default, decomposed_attention(**inputs, size=SIZE, impl=impl, scale=1 / 3))


def test_scale_is_of_the_content_alone(impl, make_inputs):
    inputs = make_inputs(SIZE)
    scaled = decomposed_attention(**inputs, size=SIZE, impl=impl, scale=0.25)
    inputs["q"] = inputs["q"] * 0.25
    assert_close(scaled, decomposed_attention(**inputs, size=SIZE, impl=impl, scale=1.0))


def test_no_bias_is_a_bias_of_zero(impl, make_inputs):
    inputs = make_inputs(SIZE, bias_h=False, bias_w=False)
    without = decomposed_attention(**inputs, size=SIZE, impl=impl)
    inputs["bias_h"] = torch.zeros(2, 2, N, 3, dtype=torch.float64)
    inputs["bias_w"] = torch.zeros(2, 2, N, 4, dtype=torch.float64)
    assert_close(decomposed_attention(**inputs, size=SIZE, impl=impl), without)


def test_nothing_to_attend_by_is_the_mean(impl, make_inputs):
    inputs = make_inputs(SIZE, bias_h=False, bias_w=False)
    out = decomposed_attention(**inputs, size=SIZE, content=False, impl=impl)
    assert_close(out, inputs["v"].mean(dim=2, keepdim=True).expand_as(out))


def test_position_only_ignores_the_keys(impl, make_inputs):
    inputs = make_inputs(SIZE)
    out = decomposed_attention(**inputs, size=SIZE, content=False, impl=impl)
    inputs["k"] = torch.randn_like(inputs["k"])
    inputs["q"] = torch.randn_like(inputs["q"])
    other = decomposed_attention(**inputs, size=SIZE, content=False, impl=impl)
    assert_close(out, other, rtol=0, atol=0)


def test_content_only_commutes_with_any_permutation(impl, make_inputs):
    inputs = make_inputs(SIZE, bias_h=False, bias_w=False)
    out = decomposed_attention(**inputs, size=SIZE, impl=impl)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    shuffled = {name: inputs[name][:, :, order] for name in ("q", "k", "v")}
    assert_close(decomposed_attention(**shuffled, size=SIZE, impl=impl), out[:, :, order])


def test_position_breaks_that_symmetry(impl, make_inputs):
    inputs = make_inputs(SIZE)
    out = decomposed_attention(**inputs, size=SIZE, impl=impl)
    order = torch.arange(N).flip(0)
    shuffled = {name: t[:, :, order] for name, t in inputs.items()}
    other = decomposed_attention(**shuffled, size=SIZE, impl=impl)
    assert not torch.allclose(other, out[:, :, order], atol=1e-2)


def test_transposed_map_with_swapped_biases(impl, make_inputs):
    inputs = make_inputs(SIZE)
    out = decomposed_attention(**inputs, size=SIZE, impl=impl)

    def transpose(tensor):
        return tensor.unflatten(2, SIZE).transpose(2, 3).flatten(2, 3)

    inputs = {name: transpose(t) for name, t in inputs.items()}
    inputs["bias_h"], inputs["bias_w"] = inputs["bias_w"], inputs["bias_h"]
    other = decomposed_attention(**inputs, size=SIZE[::-1], impl=impl)
    assert_close(other, transpose(out))


def test_a_constant_in_the_bias_changes_nothing(impl, make_inputs):
    inputs = make_inputs(SIZE)
    out = decomposed_attention(**inputs, size=SIZE, impl=impl)
    per_query = torch.randn(2, 2, N, 1, dtype=torch.float64)
    inputs["bias_h"] = inputs["bias_h"] + per_query
    inputs["bias_w"] = inputs["bias_w"] - 2
    assert_close(decomposed_attention(**inputs, size=SIZE, impl=impl), out)


def test_a_large_bias_points_at_one_cell(impl, make_inputs):
    # Row 2 and column 1 of a 3 x 4 map are key 9: rows and columns are not mixed up.
    inputs = make_inputs(SIZE)
    inputs["bias_h"] = torch.eye(3, dtype=torch.float64)[2].mul(1e3).expand(2, 2, N, 3)
    inputs["bias_w"] = torch.eye(4, dtype=torch.float64)[1].mul(1e3).expand(2, 2, N, 4)
    out = decomposed_attention(**inputs, size=SIZE, impl=impl)
    assert_close(out, inputs["v"][:, :, 9:10].expand_as(out))


def test_heads_and_images_do_not_mix(impl, make_inputs):
    inputs = make_inputs(SIZE, batch=3, heads=2)
    out = decomposed_attention(**inputs, size=SIZE, impl=impl)
    alone = {name: t[1:2, 1:2] for name, t in inputs.items()}
    assert_close(decomposed_attention(**alone, size=SIZE, impl=impl), out[1:2, 1:2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_keeps_the_dtype(impl, dtype, make_inputs):
    inputs = make_inputs(SIZE, dtype=dtype)
    assert decomposed_attention(**inputs, size=SIZE, impl=impl).dtype == dtype


def test_unknown_implementation(make_inputs):
    with pytest.raises(ValueError, match=r"auto, reference, chunked.*got 'flesh'"):
        decomposed_attention(**make_inputs(SIZE), size=SIZE, impl="flesh")


def test_wrong_map_size(make_inputs):
    with pytest.raises(ValueError, match=r"size: expected H \* W = 12.*got \(4, 4\)"):
        decomposed_attention(**make_inputs(SIZE), size=(4, 4))


def test_queries_without_heads(make_inputs):
    inputs = make_inputs(SIZE)
    inputs["q"] = inputs["q"][:, 0]
    with pytest.raises(ValueError, match=r"q: expected \[B, heads, N, d\], got shape \(2, 12, 4\)"):
        decomposed_attention(**inputs, size=SIZE)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("k", (2, 2, 12, 5), (2, 2, 12, 4)),
        ("k", (2, 2, 6, 4), (2, 2, 12, 4)),
        ("v", (2, 1, 12, 4), (2, 2, 12, 4)),
        ("v", (2, 12, 4), (2, 2, 12, 4)),
        ("bias_h", (2, 2, 12, 4), (2, 2, 12, 3)),
        ("bias_h", (1, 2, 12, 3), (2, 2, 12, 3)),
        ("bias_w", (2, 2, 12, 3), (2, 2, 12, 4)),
        ("bias_w", (2, 2, 12, 12), (2, 2, 12, 4)),
    ],
)
def test_wrong_shapes(name, shape, expected, make_inputs):
    inputs = make_inputs(SIZE)
    inputs[name] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"^{name}: expected") as raised:
        decomposed_attention(**inputs, size=SIZE)
    assert str(expected) in str(raised.value)
    assert str(shape) in str(raised.value)


@pytest.mark.parametrize("name", ["k", "v", "bias_h", "bias_w"])
def test_mixed_dtypes_and_devices(name, make_inputs):
    inputs = make_inputs(SIZE)
    inputs[name] = inputs[name].float()
    message = f"^{name}: expected torch.float64 on cpu like q, got torch.float32 on cpu"
    with pytest.raises(ValueError, match=message):
        decomposed_attention(**inputs, size=SIZE)
    inputs[name] = inputs[name].double().to("meta")
    with pytest.raises(ValueError, match=f"^{name}: .* got torch.float64 on meta"):
        decomposed_attention(**inputs, size=SIZE)
