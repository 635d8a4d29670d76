"""MultiHeadSelfAttention2d: layout of its weights, any map, attention maps, user errors."""

import pytest
import torch
from torch.testing import assert_close

from botvision.attention import MultiHeadSelfAttention2d

POSITIONS = ["relative", "absolute", "none"]
SIZE = (3, 5)


def make_layer(position="relative", *, dim=8, heads=2, size=SIZE, **options):
    torch.manual_seed(0)
    layer = MultiHeadSelfAttention2d(dim, heads, position=position, position_size=size, **options)
    return layer.double()


def image(size=SIZE, dim=8, batch=2):
    return torch.randn(batch, dim, *size, dtype=torch.float64)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("relative", {"position.height": (5, 4), "position.width": (9, 4)}),
        ("absolute", {"position.height": (3, 4), "position.width": (5, 4)}),
        ("none", {}),
    ],
)
def test_parameters(position, expected):
    # These names are the public format of the weights.
    shapes = {name: tuple(p.shape) for name, p in make_layer(position).named_parameters()}
    assert shapes == {"qkv.weight": (24, 8, 1, 1), **expected}


def test_four_heads_and_relative_position_are_the_default():
    layer = MultiHeadSelfAttention2d(8, position_size=SIZE)
    assert layer.num_heads == 4
    assert layer.position.height.shape == (5, 2)


def test_initial_projections_keep_the_variance():
    torch.manual_seed(0)
    layer = MultiHeadSelfAttention2d(256, position="none")
    out = layer.qkv(torch.randn(1, 256, 8, 8))
    assert out.std().item() == pytest.approx(1, rel=0.05)


def test_values_are_the_last_third_head_major(impl):
    # Queries of zero weigh all positions alike, so each channel becomes its value's mean.
    layer = make_layer("none", impl=impl)
    with torch.no_grad():
        layer.qkv.weight[:8] = 0
    x = image()
    values = torch.einsum("oc,bchw->bohw", layer.qkv.weight[16:, :, 0, 0], x)
    assert_close(layer(x), values.mean(dim=(2, 3), keepdim=True).expand_as(x))


def test_heads_are_independent():
    # Channels 4 to 7 of queries, keys and values make head 1, and with it output channels 4 to 7.
    layer = make_layer()
    x = image()
    before = layer(x)
    with torch.no_grad():
        for first in (4, 12, 20):
            layer.qkv.weight[first : first + 4] *= 1.5
    after = layer(x)
    assert_close(after[:, :4], before[:, :4])
    assert (after[:, 4:] - before[:, 4:]).abs().min() > 0


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("position", POSITIONS[:2])
@pytest.mark.parametrize("size", [SIZE, (1, 1), (1, 9), (7, 1), (4, 4), (6, 11)], ids=str)
def test_any_map_with_any_implementation(size, position, content, on_cpu):
    x = image(size).requires_grad_()
    steps = []
    for impl in on_cpu:
        layer = make_layer(position, content=content, impl=impl)
        out = layer(x)
        assert out.shape == x.shape
        leaves = [x, *layer.parameters()]
        steps.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    for step in steps[1:]:
        assert_close(step, steps[0])


@pytest.mark.parametrize("position", POSITIONS)
def test_transposed_map_with_swapped_tables(position):
    layer, swapped = make_layer(position), make_layer(position, size=SIZE[::-1])
    state = layer.state_dict()
    if position != "none":
        state["position.height"], state["position.width"] = (
            state["position.width"],
            state["position.height"],
        )
    swapped.load_state_dict(state)
    x = image()
    assert_close(swapped(x.mT), layer(x).mT)


def test_content_only_commutes_with_any_permutation():
    layer, x = make_layer("none"), image()
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    shuffled = x.flatten(2)[..., order].unflatten(-1, SIZE)
    assert_close(layer(shuffled), layer(x).flatten(2)[..., order].unflatten(-1, SIZE))


@pytest.mark.parametrize("batch", [1, 3])
def test_keeps_the_layout_of_its_input(impl, batch):
    # A network in channels_last would otherwise convert at every layer.
    layer, x = make_layer(impl=impl), image(batch=batch)
    steps = []
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.clone(memory_format=layout).requires_grad_()
        out = layer(given)
        assert out.is_contiguous(memory_format=layout)
        steps.append((out, *torch.autograd.grad(out.square().sum(), [given, *layer.parameters()])))
    assert_close(*steps)


def test_input_of_neither_layout(impl):
    layer, x = make_layer(impl=impl), image((SIZE[1], SIZE[0])).mT
    assert not x.is_contiguous()
    assert not x.is_contiguous(memory_format=torch.channels_last)
    assert_close(layer(x), layer(x.contiguous()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_bfloat16_autocast_with_any_implementation(impl, layout):
    layer = make_layer(dim=32, impl=impl).float()
    x = image(dim=32, batch=3).float().to(memory_format=layout).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=layout)
    leaves = [x, *layer.parameters()]
    grads = torch.autograd.grad(out.float().square().sum(), leaves)
    plain = layer(x)
    expected = torch.autograd.grad(plain.square().sum(), leaves)
    assert_close(out.float(), plain, rtol=3e-2, atol=3e-2)
    for grad, true in zip(grads, expected, strict=True):
        assert grad.dtype == torch.float32
        assert_close(grad, true, rtol=0.1, atol=0.1 * true.abs().max().item())


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("size", [SIZE, (4, 4)], ids=str)
def test_bfloat16_autocast_forward_and_backward(size, position):
    layer = make_layer(position, dim=32).float()
    x = image(size, dim=32).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert_close(out.float(), layer(x), rtol=3e-2, atol=3e-2)
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("position", POSITIONS[:2])
@pytest.mark.parametrize("size", [SIZE, (4, 2)], ids=str)
def test_attention_map_reproduces_forward(size, position, content):
    layer, x = make_layer(position, content=content), image(size)
    out = layer(x).unflatten(1, (2, 4))
    values = layer.qkv(x)[:, 16:].unflatten(1, (2, 4))
    for row in range(size[0]):
        for column in range(size[1]):
            looks = layer.attention_map(x, row, column)
            assert looks.shape == (2, 2, *size)
            assert looks.min() >= 0
            assert_close(looks.sum(dim=(2, 3)), torch.ones(2, 2, dtype=torch.float64))
            seen = torch.einsum("bnhw,bndhw->bnd", looks, values)
            assert_close(seen, out[..., row, column])


def test_attention_map_of_a_float16_layer_is_float32():
    layer, x = make_layer().half(), image().half()
    assert layer.attention_map(x, 0, 0).dtype == torch.float32


@pytest.mark.parametrize(("row", "column"), [(3, 0), (0, 5), (-1, 0), (0, -1)])
def test_attention_map_outside_the_map(row, column):
    with pytest.raises(ValueError, match=r"expected.*got"):
        make_layer().attention_map(image(), row, column)


@pytest.mark.parametrize("heads", [3, 0, -2])
def test_heads_that_do_not_divide_the_channels(heads):
    with pytest.raises(ValueError, match=f"num_heads: expected .*got {heads}"):
        MultiHeadSelfAttention2d(8, heads, position="none")


def test_unknown_position():
    with pytest.raises(ValueError, match="expected relative, absolute or none, got 'rotary'"):
        MultiHeadSelfAttention2d(8, position="rotary", position_size=SIZE)


@pytest.mark.parametrize("size", [None, (0, 3), (4, -1)])
def test_tables_without_a_size(size):
    with pytest.raises(ValueError, match=r"position_size: expected \(H, W\)") as raised:
        MultiHeadSelfAttention2d(8, position_size=size)
    assert f"got {size}" in str(raised.value)


def test_nothing_to_attend_by():
    with pytest.raises(ValueError, match="content=False with position='none'"):
        MultiHeadSelfAttention2d(8, position="none", content=False)


def test_unknown_implementation_is_refused_when_built():
    with pytest.raises(ValueError, match=r"impl: expected one of .* got 'flesh'"):
        MultiHeadSelfAttention2d(8, position="none", impl="flesh")


@pytest.mark.parametrize("position", POSITIONS[:2])
def test_loading_resizes_the_tables(position):
    # Design: "Position tables are resized when the map differs; loading resizes too."
    small, large = make_layer(position, size=(3, 5)), make_layer(position, size=(6, 7))
    large.load_state_dict(small.state_dict())
    x = image((6, 7))
    assert_close(large(x), small(x))
    # A table of another head width is another layer, not another map.
    with pytest.raises(RuntimeError, match="size mismatch"):
        make_layer(position, dim=16).load_state_dict(small.state_dict())
