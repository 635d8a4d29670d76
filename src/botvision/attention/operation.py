"""The operation that all implementations share: its signature, softmax dtype and probabilities."""

from typing import Protocol

import torch
from torch import Tensor


class Implementation(Protocol):
    """An implementation of ``decomposed_attention``, called with arguments that were checked.

    The arguments and the result are those of ``decomposed_attention``; ``scale`` is a number.
    """

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias_h: Tensor | None,
        bias_w: Tensor | None,
        *,
        size: tuple[int, int],
        scale: float,
        content: bool,
    ) -> Tensor:
        """Return the attended values, [B, heads, N, d_v]."""
        ...


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which logits and softmax are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def attention_probabilities(
    q: Tensor,
    k: Tensor,
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    *,
    size: tuple[int, int],
    scale: float,
    content: bool,
) -> Tensor:
    """Return the softmax of the decomposed logits, in plain operations.

    The arguments are those of ``decomposed_attention``, but the M queries, and the biases with
    them, may be any subset of the map's N positions.

    Returns:
        [B, heads, M, N], rows summing to 1, in float32 or better.
    """
    height, width = size
    dtype = softmax_dtype(q.dtype)
    logits = q.new_zeros(*q.shape[:-1], height, width, dtype=dtype)
    if content:
        logits = logits + ((q * scale) @ k.transpose(-1, -2)).to(dtype).unflatten(-1, size)
    if bias_h is not None:
        logits = logits + bias_h.to(dtype).unsqueeze(-1)
    if bias_w is not None:
        logits = logits + bias_w.to(dtype).unsqueeze(-2)
    return logits.flatten(-2).softmax(dim=-1)
