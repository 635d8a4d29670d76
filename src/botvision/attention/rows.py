"""What chosen positions of a map attend to, without an N x N matrix."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from botvision.attention.operation import Operands, softmax_dtype
from botvision.attention.reference import attention_probabilities

_CHUNK_ELEMENTS = 2**20  # probabilities in memory at a time


class AttendingLayer(nn.Module):
    """A layer whose attention probabilities can be read: the base of all attention layers.

    Nothing here keeps the probabilities of more than a chunk of queries.
    """

    def attention_map(self, x: Tensor, row: int, column: int) -> Tensor:
        """Return the attention probabilities of one query position.

        Args:
            x: Input of the layer, [B, C, H, W].
            row: Row of the query, 0 to H - 1.
            column: Column of the query, 0 to W - 1.

        Returns:
            Probabilities over the map, [B, heads, H, W], float32 or better.

        Raises:
            ValueError: If the position is outside the map.
        """
        size = tuple(x.shape[2:])
        for name, at, side in (("row", row, size[0]), ("column", column, size[1])):
            if not 0 <= at < side:
                raise ValueError(f"{name}: expected 0 to {side - 1} on a map of {size}, got {at}")
        return self.attention_rows(x, [row * size[1] + column]).squeeze(2)

    def attention_rows(self, x: Tensor, queries: Sequence[int] | Tensor) -> Tensor:
        """Return the attention probabilities of some query positions.

        These are rows of the N x N matrix of probabilities; all others are left out.

        Args:
            x: Input of the layer, [B, C, H, W].
            queries: Positions, Q integers from 0 to H * W - 1, row-major.

        Returns:
            Probabilities over the map, [B, heads, Q, H, W], float32 or better.

        Raises:
            ValueError: If ``queries`` is no list of positions of the map.
        """
        operands = self.operands(x)
        return _rows(operands, _positions(queries, operands.size).to(x.device))

    def weighted_attention(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return a weighted sum of the attention probabilities of all query positions.

        With A the N x N probabilities of a head it is the row vector w A. Queries of weight zero
        cost nothing; the others are taken in chunks.

        Args:
            x: Input of the layer, [B, C, H, W].
            weights: Weight of each query, [H, W].

        Returns:
            The sum over the map, [B, heads, H, W], float32 or better; probabilities where the
            weights are non-negative and sum to one.

        Raises:
            ValueError: If the weights have another shape.
        """
        operands = self.operands(x)
        if tuple(weights.shape) != operands.size:
            raise ValueError(
                f"weights: expected the map's shape {operands.size}, got {tuple(weights.shape)}"
            )
        q, k = operands.q, operands.k
        factors = weights.to(q.device, softmax_dtype(q.dtype)).flatten()
        total = factors.new_zeros(*q.shape[:2], *operands.size)
        chunk = max(1, _CHUNK_ELEMENTS // max(1, q.shape[0] * q.shape[1] * k.shape[2]))
        for queries in factors.nonzero().flatten().split(chunk):
            # A matrix product would be rounded to half precision under autocast.
            rows = _rows(operands, queries) * factors[queries].view(-1, 1, 1)
            total = total + rows.sum(2)
        return total

    @abstractmethod
    def operands(self, x: Tensor) -> Operands:
        """Return the arguments of ``decomposed_attention`` for an input, [B, C, H, W]."""

    @abstractmethod
    def projections(self) -> Sequence[nn.Module]:
        """Return the modules that make queries, keys and values."""


def attention_layers(model: nn.Module) -> list[tuple[str, AttendingLayer]]:
    """Return the names and attention layers of a model, in the order of its modules."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, AttendingLayer)
    ]


@contextmanager
def watching_attention(
    model: nn.Module, see: Callable[[str, AttendingLayer, Tensor], None]
) -> Iterator[None]:
    """Call a function before each call of an attention layer inside the block.

    Args:
        model: Model with attention layers.
        see: Called with the name of the layer in the model, the layer, and its input.
    """

    def hook(name: str, layer: Any, inputs: tuple[Tensor]) -> None:
        see(name, layer, inputs[0])

    hooks = [
        layer.register_forward_pre_hook(partial(hook, name))
        for name, layer in attention_layers(model)
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _positions(queries: Sequence[int] | Tensor, size: tuple[int, int]) -> Tensor:
    positions = torch.as_tensor(queries)
    if positions.numel() == 0:
        positions = positions.long()
    last = size[0] * size[1] - 1
    if positions.ndim != 1 or positions.is_floating_point() or positions.dtype == torch.bool:
        raise ValueError(
            "queries: expected integers [Q], positions of the map, got shape "
            f"{tuple(positions.shape)} of {positions.dtype}"
        )
    for wrong in positions[(positions < 0) | (positions > last)][:1].tolist():
        raise ValueError(f"queries: expected 0 to {last} on a map of {size}, got {wrong}")
    return positions


def _rows(operands: Operands, queries: Tensor) -> Tensor:
    """Return the probabilities of some queries, [B, heads, Q, H, W]."""
    return attention_probabilities(operands.at(queries)).unflatten(-1, operands.size)
