"""Roll-out against explicit products of whole matrices."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from botvision.attention import MultiHeadSelfAttention2d
from botvision.inspection.attention_rollout import axis_pooling, roll_out
from botvision.models.bottleneck_transformer import halving_pool


def pooling_matrix(size):
    """[n, N] of the pooling in the BoT block, a column at a time."""
    cells = torch.eye(size[0] * size[1], dtype=torch.float64).unflatten(1, size)
    return halving_pool()(cells[:, None]).flatten(1).T


def stochastic(count, cells):
    return torch.rand(count, cells, cells, dtype=torch.float64).softmax(-1)


def attend(matrix):
    return lambda weights: (weights.flatten() @ matrix).view(weights.shape)


def mixed(matrix):
    return 0.5 * matrix + 0.5 * torch.eye(len(matrix), dtype=torch.float64)


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 7), (1, 1)], ids=str)
def test_product_of_the_matrices(size):
    torch.manual_seed(0)
    small = (-(-size[0] // 2), -(-size[1] // 2))
    large_cells, small_cells = size[0] * size[1], small[0] * small[1]
    first, second = stochastic(1, large_cells)[0], stochastic(1, large_cells)[0]
    third = stochastic(1, small_cells)[0]
    pool = pooling_matrix(size)
    whole = mixed(third) @ pool @ mixed(second) @ mixed(first)  # all queries at once
    layers = [(size, attend(first)), (size, attend(second)), (small, attend(third))]
    for query in range(small_cells):
        weights = torch.zeros(small, dtype=torch.float64)
        weights.view(-1)[query] = 1
        found = roll_out(layers, weights)
        assert_close(found.flatten(), whole[query])
        assert found.sum().item() == pytest.approx(1)
    weights = torch.rand(small, dtype=torch.float64)
    assert_close(roll_out(layers, weights).flatten(), weights.flatten() @ whole)


def test_of_attention_layers():
    torch.manual_seed(0)
    layers = [MultiHeadSelfAttention2d(8, 2, position_size=(5, 3)).double() for _ in range(2)]
    inputs = [torch.randn(1, 8, *size, dtype=torch.float64) for size in ((5, 3), (3, 2))]

    def matrix(layer, x):
        cells = torch.arange(x[0, 0].numel())
        return layer.attention_rows(x, cells)[0].mean(0).flatten(1)

    whole = mixed(matrix(layers[1], inputs[1])) @ pooling_matrix((5, 3))
    whole = whole @ mixed(matrix(layers[0], inputs[0]))
    weights = torch.zeros(3, 2, dtype=torch.float64)
    weights[2, 1] = 1
    attends = [
        lambda weights, layer=layer, x=x: layer.weighted_attention(x, weights)[0].mean(0)
        for layer, x in zip(layers, inputs, strict=True)
    ]
    found = roll_out([((5, 3), attends[0]), ((3, 2), attends[1])], weights)
    assert_close(found.flatten(), whole[5])


def test_uniform_attention_is_mixed_with_the_identity():
    def uniform(weights):
        return torch.full_like(weights, weights.sum().item() / weights.numel())

    weights = torch.zeros(2, 2, dtype=torch.float64)
    weights[0, 1] = 1
    found = roll_out([((4, 4), uniform), ((2, 2), uniform)], weights)
    # A quarter stays at the query, spread over its four cells; the rest is spread over all but
    # for the quarter that the last layer spreads and the first keeps, which is uniform too.
    expected = torch.full((4, 4), 0.75 / 16, dtype=torch.float64)
    expected[:2, 2:] += 0.25 / 4
    assert_close(found, expected)


@pytest.mark.parametrize("side", [1, 2, 5, 8, 13])
def test_halving_once_and_twice(side):
    x = torch.randn(1, 1, side, side, dtype=torch.float64)
    half = -(-side // 2)
    once = axis_pooling(side, half)
    assert_close(once @ x[0, 0] @ once.T, halving_pool()(x)[0, 0])
    twice = axis_pooling(side, -(-half // 2))
    assert_close(twice @ x[0, 0] @ twice.T, halving_pool()(halving_pool()(x))[0, 0])


@pytest.mark.parametrize(("large", "small"), [(9, 4), (12, 5), (7, 6), (4, 8), (3, 7)])
def test_other_sides(large, small):
    x = torch.randn(1, 1, large, dtype=torch.float64)
    expected = nn.functional.adaptive_avg_pool1d(x, small)[0, 0]
    assert_close(axis_pooling(large, small) @ x[0, 0], expected)
