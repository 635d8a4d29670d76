"""Three independent implementations say the same: the paper's formula in loops, and two peers."""

import math

import numpy as np
import pytest
import torch
from bottleneck_transformer_pytorch.bottleneck_transformer_pytorch import Attention
from timm.layers.bottleneck_attn import BottleneckAttn
from torch.testing import assert_close

from botvision.attention import MultiHeadSelfAttention2d

SIZES = [(1, 1), (1, 4), (3, 1), (2, 2), (3, 5), (6, 4)]
HEADS, HEAD_DIM = 2, 8
DIM = HEADS * HEAD_DIM


def make_layer(size, position="relative", **options):
    torch.manual_seed(0)
    layer = MultiHeadSelfAttention2d(DIM, HEADS, position=position, position_size=size, **options)
    return layer.double()


def image(size):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, DIM, *size, generator=generator, dtype=torch.float64)


def by_loops(layer, x, position, *, content=True):
    """Section 3.1 and figure 4, position by position: softmax(q k^T + q r^T) v."""
    pixels = x.numpy()
    batch, _, height, width = pixels.shape
    weight = layer.qkv.weight.detach().numpy()[:, :, 0, 0]
    tables = {} if layer.position is None else layer.position.state_dict()
    r_h, r_w = (tables[name].numpy() if tables else None for name in ("height", "width"))
    out = np.zeros_like(pixels)
    for b in range(batch):
        for head in range(HEADS):
            channels = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            w_q, w_k, w_v = (w[channels] for w in np.split(weight, 3))
            for y in range(height):
                for x_ in range(width):
                    query = w_q @ pixels[b, :, y, x_] / math.sqrt(HEAD_DIM)
                    logits = np.zeros((height, width))
                    for key_y in range(height):
                        for key_x in range(width):
                            if content:
                                key = w_k @ pixels[b, :, key_y, key_x]
                                logits[key_y, key_x] += query @ key
                            if position == "relative":
                                r = r_h[key_y - y + height - 1] + r_w[key_x - x_ + width - 1]
                                logits[key_y, key_x] += query @ r
                            if position == "absolute":
                                logits[key_y, key_x] += query @ (r_h[key_y] + r_w[key_x])
                    weights = np.exp(logits)
                    values = np.einsum("oc,chw->ohw", w_v, pixels[b])
                    out[b, channels, y, x_] = (weights * values).sum((1, 2)) / weights.sum()
    return torch.from_numpy(out)


@pytest.mark.parametrize(
    ("position", "content"),
    [
        ("relative", True),
        ("relative", False),
        ("absolute", True),
        ("absolute", False),
        ("none", True),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (3, 4)], ids=str)
def test_equals_loops_over_four_indices(size, position, content, impl):
    layer = make_layer(size, position, content=content, impl=impl)
    x = image(size)
    assert_close(layer(x), by_loops(layer, x, position, content=content))


def outputs_and_gradients(module, x, parameters):
    x = x.clone().requires_grad_()
    out = module(x)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    return out, *torch.autograd.grad(out, [x, *parameters], cotangent)


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("position", ["relative", "absolute"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_bottleneck_transformer_pytorch(size, position, impl):
    layer = make_layer(size, position, impl=impl)
    peer = Attention(
        dim=DIM,
        fmap_size=size,
        heads=HEADS,
        dim_head=HEAD_DIM,
        rel_pos_emb=position == "relative",
    ).double()
    prefix = "rel_" if position == "relative" else ""
    tables = [getattr(peer.pos_emb, prefix + name) for name in ("height", "width")]
    their_parameters = [peer.to_qkv.weight, *tables]
    our_parameters = [layer.qkv.weight, layer.position.height, layer.position.width]
    with torch.no_grad():
        for ours, theirs in zip(our_parameters, their_parameters, strict=True):
            ours.copy_(theirs)
    x = image(size)
    assert_same(
        outputs_and_gradients(layer, x, our_parameters),
        outputs_and_gradients(peer, x, their_parameters),
    )


def timm_peer(layer, size, *, factor, scale_pos_embed=False):
    """timm's layer with our weights, our tables being theirs times ``factor``."""
    peer = BottleneckAttn(
        DIM, feat_size=size, num_heads=HEADS, scale_pos_embed=scale_pos_embed
    ).double()
    with torch.no_grad():
        peer.qkv.weight.copy_(layer.qkv.weight)
        peer.pos_embed.height_rel.copy_(layer.position.height / factor)
        peer.pos_embed.width_rel.copy_(layer.position.width / factor)
    return peer


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_timm_with_tables_times_sqrt_d(size, impl):
    # timm scales q . k by d ** -0.5 and leaves q . r alone; the paper's authors scale q itself.
    layer = make_layer(size, impl=impl)
    factor = math.sqrt(HEAD_DIM)
    peer = timm_peer(layer, size, factor=factor)
    x = image(size)
    ours = outputs_and_gradients(layer, x, [*layer.parameters()])
    out, grad_x, grad_qkv, *grad_tables = outputs_and_gradients(peer, x, [*peer.parameters()])
    # d / d(theirs) = sqrt(d) * d / d(ours).
    assert_same(ours, (out, grad_x, grad_qkv, *(grad / factor for grad in grad_tables)))


def test_differs_from_timm_with_the_same_tables(impl):
    layer, x = make_layer((3, 5), impl=impl), image((3, 5))
    peer = timm_peer(layer, (3, 5), factor=1)
    assert (layer(x) - peer(x)).abs().max() > 1e-2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_timm_that_scales_the_position_too(size, impl):
    # scale_pos_embed=True is the authors' scaling: then the tables are the same as ours.
    layer, x = make_layer(size, impl=impl), image(size)
    peer = timm_peer(layer, size, factor=1, scale_pos_embed=True)
    assert_same(
        outputs_and_gradients(layer, x, [*layer.parameters()]),
        outputs_and_gradients(peer, x, [*peer.parameters()]),
    )
