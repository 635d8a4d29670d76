"""Attention roll-out: attention through all layers (Abnar and Zuidema 2020, arXiv 2005.00928)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Attend = Callable[[Tensor], Tensor]
"""Takes weights of the queries [H, W] to w A [H, W], with A a layer's mean over heads."""

_RESIDUAL = 0.5  # the weight of the residual connection beside attention (section 3)


def roll_out(layers: Sequence[tuple[tuple[int, int], Attend]], weights: Tensor) -> Tensor:
    """Return where positions look through all attention layers.

    With A_l the mean over heads of layer l's probabilities and P_l the average pooling between
    the maps of layers l and l + 1, it is the row vector::

        w R_n P_(n-1) R_(n-1) ... P_1 R_1    with R_l = 0.5 A_l + 0.5 I

    multiplied from the left, so no matrix of N x N is needed where the layers can multiply a
    vector by theirs.

    Args:
        layers: Map size (H, W) and attention of each layer, in the network's order.
        weights: w, the weight of each query on the last layer's map.

    Returns:
        Weights on the first layer's map, of the sum of ``weights``.
    """
    for size, attend in reversed(layers):
        pool = (
            axis_pooling(large, small) for large, small in zip(size, weights.shape, strict=True)
        )
        rows, columns = (matrix.to(weights) for matrix in pool)
        weights = rows.T @ weights @ columns
        weights = (1 - _RESIDUAL) * attend(weights).to(weights) + _RESIDUAL * weights
    return weights


def axis_pooling(large: int, small: int) -> Tensor:
    """Return the average pooling of one axis of a map, float64 [small, large]; rows sum to one.

    Where halving reaches the smaller side, it is that of ``halving_pool``: pairs of cells, and the
    last one alone where the side is odd. Other sides are those of adaptive average pooling.
    """
    matrix = torch.eye(large, dtype=torch.float64)
    while len(matrix) > small:
        matrix = _halving(len(matrix)) @ matrix
    if len(matrix) == small:
        return matrix
    cells = torch.arange(large)
    index = torch.arange(small)[:, None]
    start, end = index * large // small, -((index + 1) * large // -small)
    within = ((cells >= start) & (cells < end)).double()
    return within / within.sum(1, keepdim=True)


def _halving(side: int) -> Tensor:
    half = torch.arange(-(-side // 2))[:, None]
    pairs = (torch.arange(side) // 2 == half).double()
    return pairs / pairs.sum(1, keepdim=True)
