"""The chunked implementation's two operators keep the contracts of ``torch.library``."""

import pytest
import torch
from torch.library import opcheck
from torch.testing import assert_close
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from botvision.attention import chunked, decomposed_attention

SIZE = (2, 3)


def configuration(make_inputs, *, content=True, **options):
    """Positional arguments of the forward operator."""
    inputs = make_inputs(SIZE, value_dim=5, dtype=options.pop("dtype", torch.float32), **options)
    *qkv, bias_h, bias_w = inputs.values()
    return (qkv, bias_h, bias_w, list(SIZE), 0.5, content)


CONFIGURATIONS = {
    "all": {},
    "no_bias_h": {"bias_h": False},
    "no_bias_w": {"bias_w": False},
    "content_alone": {"bias_h": False, "bias_w": False},
    "position_alone": {"content": False},
    "one_bias_alone": {"bias_w": False, "content": False},
    "batch_of_none": {"batch": 0},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
}


@pytest.fixture(params=CONFIGURATIONS)
def arguments(request, make_inputs):
    return configuration(make_inputs, **CONFIGURATIONS[request.param])


def laid_out_by_width(arguments):
    return tree_map_only(
        torch.Tensor, lambda t: t.detach().mT.contiguous().mT.requires_grad_(), arguments
    )


# opcheck itself looks at the gradients of copies.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])
def test_forward_operator(arguments, strided):
    # Its schema, its derivative's registration, and shapes, dtypes and strides of the fake
    # output, with fixed and with symbolic sizes.
    opcheck(chunked._forward, laid_out_by_width(arguments) if strided else arguments)


@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])
def test_backward_operator(arguments, strided):
    arguments = laid_out_by_width(arguments) if strided else arguments
    inputs = tree_map_only(torch.Tensor, torch.Tensor.detach, arguments)
    cotangent = torch.randn_like(inputs[0][2])
    opcheck(chunked._backward, (cotangent, *inputs))
    opcheck(chunked._backward, (cotangent[..., :1].expand(cotangent.shape), *inputs))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("content", [True, False])
def test_counts_the_operations_of_the_reference(content, device, make_inputs):
    size, dim, value_dim = (3, 4), 5, 7
    drawn = make_inputs(size, dim=dim, value_dim=value_dim)
    inputs = {name: t.detach().to(device).requires_grad_() for name, t in drawn.items()}
    counts = {}
    for impl in ("reference", "chunked"):
        with FlopCounterMode(display=False) as forward:
            out = decomposed_attention(**inputs, size=size, content=content, impl=impl)
        with FlopCounterMode(display=False) as backward:
            out.sum().backward()
        counts[impl] = forward.get_total_flops(), backward.get_total_flops()
    groups, n = 2 * 2, 12
    content_product = 2 * groups * n * n * dim * content
    value_product = 2 * groups * n * n * value_dim
    assert counts["reference"] == (
        content_product + value_product,
        2 * (content_product + value_product),
    )
    # The content product is computed again on the way back.
    forward, backward = counts["reference"]
    assert counts["chunked"] == (forward, backward + content_product)


def test_autocast_does_not_reach_into_the_blocks(run, make_inputs):
    inputs = make_inputs((5, 7), dtype=torch.float32)
    plain = run(inputs, (5, 7), "chunked")
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(inputs, (5, 7), "chunked")
    assert_close(cast, plain, rtol=0, atol=0)


def test_inputs_are_left_as_they_are(run, make_inputs):
    # The blocks are computed in place, in buffers of their own.
    inputs = make_inputs((5, 7))
    before = {name: t.detach().clone() for name, t in inputs.items()}
    run(inputs, (5, 7), "chunked")
    for name, t in inputs.items():
        assert_close(t.detach(), before[name], rtol=0, atol=0)
