"""Rows of the attention matrix, and their weighted sums, against the softmax of the formula."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from botvision.attention import MultiHeadSelfAttention2d, rows
from botvision.models.foreign import ConvertedAttention2d
from botvision.models.non_local import NonLocal2d

SIZE = (3, 5)


def relative(content=True):
    return MultiHeadSelfAttention2d(8, 2, position_size=SIZE, content=content)


def absolute():
    return MultiHeadSelfAttention2d(8, 2, position="absolute", position_size=SIZE)


def converted():
    # Keys of 2 and values of 3 channels a head, and a projection with a bias.
    return ConvertedAttention2d(
        nn.Conv2d(8, 2 * (2 + 2 + 3), 1),
        torch.randn(5, 2),
        torch.randn(9, 2),
        num_heads=2,
        position="relative",
        impl="auto",
    )


def non_local():
    block = NonLocal2d(8)
    for projection in (block.theta, block.phi):
        nn.init.normal_(projection.weight)
    return block


LAYERS = {
    "relative": relative,
    "relative alone": lambda: relative(content=False),
    "absolute": absolute,
    "converted": converted,
    "non-local": non_local,
}


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    return LAYERS[request.param]().double().eval()


def image(batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, 8, *SIZE, dtype=torch.float64)


def projections(layer, x):
    """Queries and keys, [B, heads, N, d]."""
    if isinstance(layer, NonLocal2d):
        return [
            torch.einsum("oc,bcn->bno", each.weight[:, :, 0, 0], x.flatten(2))[:, None]
            for each in (layer.theta, layer.phi)
        ]
    width = layer.position.height.shape[1]
    out = torch.einsum("oc,bcn->bon", layer.qkv.weight[:, :, 0, 0], x.flatten(2))
    if layer.qkv.bias is not None:
        out = out + layer.qkv.bias[:, None]
    return [
        out[:, first : first + 2 * width].unflatten(1, (2, width)).transpose(2, 3)
        for first in (0, 2 * width)
    ]


def by_the_formula(layer, x):
    """The N x N probabilities [B, heads, N, N], a logit at a time (paper section 3.1)."""
    queries, keys = projections(layer, x)
    scale = queries.shape[-1] ** -0.5
    cells = [(row, column) for row in range(SIZE[0]) for column in range(SIZE[1])]
    logits = torch.zeros(*queries.shape[:3], len(cells), dtype=torch.float64)
    for i, (row, column) in enumerate(cells):
        for j, (other_row, other_column) in enumerate(cells):
            q, k = queries[:, :, i], keys[:, :, j]
            if isinstance(layer, NonLocal2d):
                logits[..., i, j] = (q * k).sum(-1) * scale
                continue
            at = (other_row, other_column)
            if layer.position.relative:
                at = (other_row - row + SIZE[0] - 1, other_column - column + SIZE[1] - 1)
            r = layer.position.height[at[0]] + layer.position.width[at[1]]
            terms = k + r if layer.content else r
            logits[..., i, j] = (q * terms).sum(-1) * scale
    exponentials = logits.exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def test_rows_are_the_softmax_of_the_formula(layer):
    x = image()
    expected = by_the_formula(layer, x)
    chosen = [7, 0, 14, 7]
    found = layer.attention_rows(x, chosen)
    assert found.shape == (2, expected.shape[1], 4, *SIZE)
    assert_close(found.flatten(-2), expected[:, :, chosen])
    assert_close(layer.attention_rows(x, torch.arange(15)).flatten(-2), expected)
    assert_close(layer.attention_map(x, 1, 2), found[:, :, 0])


@pytest.mark.parametrize("elements", [1, 2 * 2 * 15 * 4, 2**22], ids=["rows", "fours", "whole"])
def test_weighted_attention_is_a_row_vector_times_the_matrix(elements, layer, monkeypatch):
    monkeypatch.setattr(rows, "_CHUNK_ELEMENTS", elements)
    x = image()
    weights = torch.rand(SIZE, dtype=torch.float64)
    weights[0, 1:4] = 0
    expected = torch.einsum("n,bhnm->bhm", weights.flatten(), by_the_formula(layer, x))
    found = layer.weighted_attention(x, weights)
    assert_close(found, expected.unflatten(-1, SIZE))
    assert_close(
        layer.weighted_attention(x, weights / weights.sum()).sum((2, 3)),
        torch.ones(found.shape[:2], dtype=torch.float64),
    )


def test_weights_of_zero_are_no_attention(layer):
    assert layer.weighted_attention(image(), torch.zeros(SIZE)).count_nonzero() == 0


def test_no_queries(layer):
    x = image()
    assert layer.attention_rows(x, []).shape == (2, layer.attention_map(x, 0, 0).shape[1], 0, *SIZE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32(dtype):
    layer = relative().to(dtype)
    x = image().to(dtype)
    assert layer.attention_rows(x, [0]).dtype == torch.float32
    assert layer.weighted_attention(x, torch.ones(SIZE)).dtype == torch.float32


def test_autocast_does_not_round_the_sum():
    layer = relative()
    x = image().float()
    weights = torch.full(SIZE, 1 / 15)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer.weighted_attention(x, weights)
        expected = layer.attention_rows(x, torch.arange(15)).mean(2)
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_weighted_attention_has_gradients(layer):
    x = image().requires_grad_()
    layer.weighted_attention(x, torch.rand(SIZE)).square().sum().backward()
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        ([0, 15], r"queries: expected 0 to 14 on a map of \(3, 5\), got 15$"),
        ([-1], r"queries: expected 0 to 14 on a map of \(3, 5\), got -1$"),
        ([[0, 1]], r"queries: expected integers \[Q\], .* got shape \(1, 2\) of torch.int64$"),
        ([0.5], r"queries: expected integers \[Q\], .* of torch.float32$"),
        ([True], r"queries: expected integers \[Q\], .* of torch.bool$"),
    ],
    ids=str,
)
def test_queries_that_are_none(queries, expected):
    with pytest.raises(ValueError, match=expected):
        relative().attention_rows(image().float(), queries)


@pytest.mark.parametrize("shape", [(15,), (5, 3), (2, 3, 5)], ids=str)
def test_weights_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"weights: expected the map's shape \(3, 5\), got \("):
        relative().weighted_attention(image().float(), torch.ones(shape))
