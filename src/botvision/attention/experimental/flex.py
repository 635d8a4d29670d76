"""Decomposed attention by torch's FlexAttention, compiled for the GPU.

The biases are read where a logit is computed. Their gradients are summed by atomic additions, so
they differ from run to run. Not timed on a GPU yet.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from botvision.attention.operation import Operands


def flex_attention(operands: Operands) -> Tensor:
    """See ``decomposed_attention``.

    Raises:
        ValueError: If the tensors are not on a CUDA device; elsewhere FlexAttention has no
            gradients, and uncompiled it holds N x N logits.
    """
    q, k, v, bias_h, bias_w, size, scale, content = operands
    if q.device.type != "cuda":
        raise ValueError(f"impl 'flex': expected tensors on a CUDA device, got {q.device}")
    score = score_function(bias_h, bias_w, size[1])
    out: Tensor = _compiled_flex_attention()(
        q, k, v, score_mod=score, scale=scale if content else 0.0
    )
    return out


def score_function(
    bias_h: Tensor | None, bias_w: Tensor | None, width: int
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the function of FlexAttention that adds the biases of a map ``width`` columns wide."""

    def add_biases(
        score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor
    ) -> Tensor:
        if bias_h is not None:
            score = score + bias_h[batch, head, query, key // width]
        if bias_w is not None:
            score = score + bias_w[batch, head, query, key % width]
        return score

    return add_biases


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    from torch.nn.attention import flex_attention as torch_flex

    # Maps come in many sizes: after the second one the kernel is compiled for any.
    return torch.compile(torch_flex.flex_attention)
