"""Decomposed attention over blocks of queries, with memory that grows with N, not N squared.

The forward pass keeps one block of logits at a time and saves only the log-sum-exp of each row;
the backward pass recomputes each block from it, as FlashAttention does (Dao et al. 2022,
arXiv 2205.14135, section 3.1). The position bias enters each block by broadcasting.

Shape legend: G = batch x heads, M = queries of a block, N = H x W keys.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from botvision.attention.reference import softmax_dtype

# A block of logits stays in the last-level cache of a CPU core; a GPU needs far larger blocks
# to keep its multiprocessors busy.
_BLOCK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
_SMALLEST_BLOCK_ROWS = 32


def chunked_attention(
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
    return _ChunkedAttention.apply(q, k, v, bias_h, bias_w, size, scale, content)


def _no_autocast(device_type: str) -> AbstractContextManager[object]:
    """The caller's autocast has had its say in the inputs' dtype; "meta" and others have none."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _blocks(groups: int, n: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Slices of (G, queries) whose logits fit the block size of the device."""
    budget = _BLOCK_ELEMENTS.get(device.type, _BLOCK_ELEMENTS["cuda"])
    rows = max(1, min(n, max(_SMALLEST_BLOCK_ROWS, budget // max(n, 1))))
    together = max(1, budget // (rows * max(n, 1)))
    for first in range(0, groups, together):
        for row in range(0, n, rows):
            yield slice(first, min(first + together, groups)), slice(row, min(row + rows, n))


def _logits(
    q: Tensor,
    k: Tensor,
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    size: tuple[int, int],
    scale: float,
    content: bool,
) -> Tensor:
    """Logits [G, M, N] of one block, in the dtype of the softmax."""
    groups, rows = q.shape[:2]
    dtype = softmax_dtype(q.dtype)
    by_row = None if bias_h is None else bias_h.to(dtype).unsqueeze(-1)
    by_column = None if bias_w is None else bias_w.to(dtype).unsqueeze(-2)
    if by_row is not None and by_column is not None:
        logits = by_row + by_column
    else:
        logits = torch.zeros(groups, rows, *size, dtype=dtype, device=q.device)
        for bias in (by_row, by_column):
            if bias is not None:
                logits += bias
    logits = logits.flatten(-2)
    if not content:
        return logits
    if q.dtype == dtype:
        return logits.baddbmm_(q, k.transpose(-1, -2), alpha=scale)
    return logits.add_(torch.bmm(q * scale, k.transpose(-1, -2)))


class _ChunkedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias_h: Tensor | None,
        bias_w: Tensor | None,
        size: tuple[int, int],
        scale: float,
        content: bool,
    ) -> Tensor:
        q3, k3, v3 = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        h3 = None if bias_h is None else bias_h.flatten(0, 1)
        w3 = None if bias_w is None else bias_w.flatten(0, 1)
        groups, n, _ = v3.shape
        out = torch.empty_like(v, memory_format=torch.contiguous_format)
        out3 = out.flatten(0, 1)
        log_sum_exp = torch.empty(groups, n, 1, dtype=softmax_dtype(q.dtype), device=q.device)
        with _no_autocast(q.device.type):
            for g, m in _blocks(groups, n, q.device):
                logits = _logits(
                    q3[g, m],
                    k3[g],
                    None if h3 is None else h3[g, m],
                    None if w3 is None else w3[g, m],
                    size,
                    scale,
                    content,
                )
                largest = logits.amax(dim=-1, keepdim=True)
                weights = logits.sub_(largest).exp_()
                total = weights.sum(dim=-1, keepdim=True)
                out3[g, m] = torch.bmm(weights.to(v.dtype), v3[g]) / total
                log_sum_exp[g, m] = largest + total.log()
        ctx.save_for_backward(q, k, v, bias_h, bias_w, out, log_sum_exp)
        ctx.size, ctx.scale, ctx.content = size, scale, content
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias_h, bias_w, out, log_sum_exp = ctx.saved_tensors
        size, scale, content = ctx.size, ctx.scale, ctx.content
        leading = q.shape[:2]
        q3, k3, v3, out3, grad3 = (t.flatten(0, 1) for t in (q, k, v, out, grad_out))
        h3 = None if bias_h is None else bias_h.flatten(0, 1)
        w3 = None if bias_w is None else bias_w.flatten(0, 1)
        dtype = log_sum_exp.dtype
        # Keys and values collect a term from every block, so they are summed in the wider dtype.
        grad_q = torch.empty_like(q3, memory_format=torch.contiguous_format) if content else None
        grad_k = torch.zeros(k3.shape, dtype=dtype, device=k.device) if content else None
        grad_v = torch.zeros(v3.shape, dtype=dtype, device=v.device)
        grad_h = None if h3 is None else torch.empty_like(h3)
        grad_w = None if w3 is None else torch.empty_like(w3)
        with _no_autocast(q.device.type):
            # sum_j P_ij dP_ij, which the softmax's derivative subtracts, equals dO_i . O_i.
            delta = (grad3.to(dtype) * out3.to(dtype)).sum(dim=-1, keepdim=True)
            for g, m in _blocks(len(v3), v3.shape[1], q.device):
                logits = _logits(
                    q3[g, m],
                    k3[g],
                    None if h3 is None else h3[g, m],
                    None if w3 is None else w3[g, m],
                    size,
                    scale,
                    content,
                )
                weights = logits.sub_(log_sum_exp[g, m]).exp_()
                _add_product(grad_v[g], weights.to(v.dtype).transpose(-1, -2), grad3[g, m])
                grad_logits = torch.bmm(grad3[g, m], v3[g].transpose(-1, -2)).to(dtype)
                grad_logits.sub_(delta[g, m]).mul_(weights)
                by_cell = grad_logits.unflatten(-1, size)
                if grad_h is not None:
                    grad_h[g, m] = by_cell.sum(dim=-1).to(grad_h.dtype)
                if grad_w is not None:
                    grad_w[g, m] = by_cell.sum(dim=-2).to(grad_w.dtype)
                if grad_q is not None and grad_k is not None:
                    narrow = grad_logits.mul_(scale).to(q.dtype)
                    grad_q[g, m] = torch.bmm(narrow, k3[g])
                    _add_product(grad_k[g], narrow.transpose(-1, -2), q3[g, m])

        def restore(grad: Tensor | None, like: Tensor) -> Tensor | None:
            return None if grad is None else grad.to(like.dtype).unflatten(0, leading)

        grads = (
            restore(grad_q, q),
            restore(grad_k, k),
            restore(grad_v, v),
            restore(grad_h, q),
            restore(grad_w, q),
        )
        return (*grads, None, None, None)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Total += left @ right for [G, a, b] stacks, in the dtype of ``total``."""
    if left.dtype == total.dtype:
        total.baddbmm_(left, right)
    else:
        total.add_(torch.bmm(left, right))
