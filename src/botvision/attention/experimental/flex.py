"""Decomposed attention by torch's FlexAttention, compiled for the GPU.

The biases are read where a logit is made and get their gradients by atomic additions, so
gradients are not the same from run to run.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


def flex_attention(
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
    """See ``decomposed_attention``.

    Raises:
        ValueError: If the tensors are not on a CUDA device; elsewhere FlexAttention has no
            gradients, and uncompiled it holds N x N logits.
    """
    if q.device.type != "cuda":
        raise ValueError(f"impl 'flex': expected tensors on a CUDA device, got {q.device}")
    return attend_by_score(
        _compiled_flex_attention(), q, k, v, bias_h, bias_w, size=size, scale=scale, content=content
    )


def attend_by_score(
    attend: Callable[..., Any],
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
    """Call ``attend``, FlexAttention compiled or not, with the biases as its score function."""
    width = size[1]

    def add_biases(
        score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor
    ) -> Tensor:
        if bias_h is not None:
            score = score + bias_h[batch, head, query, key // width]
        if bias_w is not None:
            score = score + bias_w[batch, head, query, key % width]
        return score

    out: Tensor = attend(q, k, v, score_mod=add_biases, scale=scale if content else 0.0)
    return out


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    from torch.nn.attention import flex_attention as torch_flex

    # Maps come in many sizes: after the second one the kernel is made for any.
    return torch.compile(torch_flex.flex_attention)
