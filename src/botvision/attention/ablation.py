"""Attention that is disturbed on purpose, to see whether a network uses it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from botvision.attention.operation import Operands
from botvision.attention.rows import AttendingLayer

Ablation = Literal["no_positions", "uniform", "other_query"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)


@contextmanager
def ablated(layers: Sequence[AttendingLayer], ablation: Ablation) -> Iterator[None]:
    """Disturb the attention of layers inside the block; their parameters stay as they are.

    Args:
        layers: Layers to disturb, see ``attention_layers``.
        ablation: "no_positions" leaves out the position logits, as tables of zeros do; "uniform"
            attends to all keys alike; "other_query" gives each query the attention of another
            one, always the same for a size of the map.

    Raises:
        ValueError: If the ablation is unknown.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation: expected one of {', '.join(ABLATIONS)}, got {ablation!r}")
    disturb = {
        "no_positions": _without_positions,
        "uniform": _uniform,
        "other_query": _of_another_query,
    }[ablation]
    changed: list[Any] = list(layers)
    for layer in changed:
        layer.operands = _Disturbed(layer.operands, disturb)
    try:
        yield
    finally:
        for layer in changed:
            del layer.operands  # the method of the class is found again


class _Disturbed:
    def __init__(
        self, operands: Callable[[Tensor], Operands], disturb: Callable[[Operands], Operands]
    ) -> None:
        self._operands, self._disturb = operands, disturb

    def __call__(self, x: Tensor) -> Operands:
        return self._disturb(self._operands(x))


def _without_positions(operands: Operands) -> Operands:
    return operands._replace(
        bias_h=_zeros_like(operands.bias_h), bias_w=_zeros_like(operands.bias_w)
    )


def _uniform(operands: Operands) -> Operands:
    return _without_positions(operands)._replace(q=torch.zeros_like(operands.q))


def _of_another_query(operands: Operands) -> Operands:
    return operands.at(_another(operands.q.shape[2], operands.q.device))


def _zeros_like(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else torch.zeros_like(bias)


def _another(count: int, device: torch.device) -> Tensor:
    """Return a number other than its own for each query; one query has only its own."""
    cycle = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    another = torch.empty_like(cycle)
    another[cycle] = cycle.roll(-1)
    return another.to(device)
