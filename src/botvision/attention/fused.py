"""Decomposed attention as one call of torch's fused attention: the biases widen the heads.

A bias that splits into rows and columns is itself a scalar product::

    bias_h[i, row(j)] + bias_w[i, col(j)] = [bias_h_i, bias_w_i] . [onehot(row(j)), onehot(col(j))]

so with q' = [scale q, bias_h, bias_w] and k' = [k, onehot(row), onehot(column)] plain attention
over heads of width d + H + W is exact, and its gradients of q' are those of the biases. torch
picks the kernel; FlashAttention takes half precision up to a width of 256.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from botvision.attention.operation import Operands


def fused_attention(operands: Operands) -> Tensor:
    """See ``decomposed_attention``."""
    q, k, v, bias_h, bias_w, size, scale, content = operands
    queries, keys = ([q * scale], [k]) if content else ([], [])
    position = torch.arange(q.shape[2], device=q.device)
    axes = ((bias_h, position // size[1]), (bias_w, position % size[1]))
    for (bias, coordinate), length in zip(axes, size, strict=True):
        if bias is not None:
            # F.one_hot would make torch.compile recompile for every size.
            cells = torch.arange(length, device=q.device)
            one_hot = (coordinate.unsqueeze(1) == cells).to(bias.dtype)
            queries.append(bias)
            keys.append(one_hot.expand(*bias.shape[:2], -1, -1))
    if not queries:  # all logits are zero
        queries, keys = [torch.zeros_like(q)], [torch.zeros_like(k)]
    wide_q, wide_k = torch.cat(queries, -1), torch.cat(keys, -1)
    # The fused kernels need heads of one width.
    width = max(wide_q.shape[-1], v.shape[-1])
    wide_q, wide_k, wide_v = (F.pad(t, (0, width - t.shape[-1])) for t in (wide_q, wide_k, v))
    out = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)
    return out[..., : v.shape[-1]]
