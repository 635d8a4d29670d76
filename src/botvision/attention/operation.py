"""Shared by the implementations: operands, softmax dtype, memory of the gradients."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor


class Operands(NamedTuple):
    """The arguments of ``decomposed_attention``, checked; ``scale`` is a number."""

    q: Tensor
    k: Tensor
    v: Tensor
    bias_h: Tensor | None
    bias_w: Tensor | None
    size: tuple[int, int]
    scale: float
    content: bool

    def at(self, queries: Tensor) -> "Operands":
        """Return the operands of some queries alone, int64 [M]: positions of the map, row-major."""
        bias_h, bias_w = (
            None if bias is None else bias.index_select(2, queries)
            for bias in (self.bias_h, self.bias_w)
        )
        return self._replace(q=self.q.index_select(2, queries), bias_h=bias_h, bias_w=bias_w)


Implementation: TypeAlias = Callable[[Operands], Tensor]
"""An implementation of ``decomposed_attention``; returns the attended values [B, heads, N, d_v]."""


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which logits and softmax are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def empty_gradients(
    qkv: Sequence[Tensor], bias_h: Tensor | None, bias_w: Tensor | None, content: bool
) -> list[Tensor]:
    """Return memory for the gradients of q, k, v and the biases, without elements if unused."""
    tensors = (*(qkv if content else (None, None, qkv[2])), bias_h, bias_w)
    return [qkv[0].new_empty((0, 0, 0, 0) if t is None else t.shape) for t in tensors]


def gradients_of_arguments(
    grads: Sequence[Tensor], bias_h: Tensor | None, bias_w: Tensor | None, content: bool
) -> tuple[Any, ...]:
    """Return the derivative of an operator (qkv, bias_h, bias_w, size, scale, content).

    Args:
        grads: Gradients of q, k, v and the biases, in the memory of ``empty_gradients``.
        bias_h: Bias of the operator.
        bias_w: Bias of the operator.
        content: Whether the result depends on q and k.
    """
    q, k, v, h, w = grads
    for_qkv = [q, k, v] if content else [None, None, v]
    for_biases = (None if bias_h is None else h, None if bias_w is None else w)
    return for_qkv, *for_biases, None, None, None
