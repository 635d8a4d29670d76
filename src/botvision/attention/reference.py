"""The specification of decomposed attention in plain operations, N x N logits and all."""

import torch
from torch import Tensor


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which logits and softmax are computed: at least float32."""
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
    """Where each query looks: softmax of the decomposed logits.

    The queries may be any subset of the map's positions; the keys are the whole map.

    Args:
        q: [B, heads, M, d]; M queries.
        k: [B, heads, N, d] with N = H * W.
        bias_h: [B, heads, M, H] or None.
        bias_w: [B, heads, M, W] or None.
        size: (H, W).
        scale: Factor of the content logits.
        content: Whether the content logits take part.

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


def reference_attention(
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
    """See ``decomposed_attention``."""
    probabilities = attention_probabilities(
        q, k, bias_h, bias_w, size=size, scale=scale, content=content
    )
    return probabilities.to(v.dtype) @ v
