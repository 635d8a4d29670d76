"""Decomposed attention over blocks of queries, with memory that grows with N, not N squared.

The logits of a block live in one buffer: the position bias is written into it, the content product
added, and the softmax taken in place. The backward pass computes each block again instead of
keeping it, as FlashAttention does (Dao et al. 2022, arXiv 2205.14135, section 3.1). A block holds
whole rows, so it takes the softmax again instead of exp(logits - log-sum-exp): nothing but the
inputs is saved, and on the CPU torch's softmax is faster than its exp alone
(docs/performance.md).

Both passes are operators of ``torch.library``, so ``torch.compile`` takes them whole. All
products are in place or into a given tensor, which autocast leaves alone.

Shape legend: G = batch x heads, M = queries of a block, N = H x W keys.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from botvision.attention.operation import (
    Operands,
    empty_gradients,
    gradients_of_arguments,
    softmax_dtype,
)
from botvision.attention.second_derivatives import differentiate_backward, save_backward

# Elements of a block of logits. On a CPU the products want many rows, the other steps a block that
# stays in the caches; a GPU wants enough to keep its multiprocessors busy.
_BLOCK_ELEMENTS = {"cpu": 2**21, "cuda": 2**26}
# With fewer rows the products of a large map wait for memory.
_SMALLEST_BLOCK_ROWS = 512


def chunked_attention(operands: Operands) -> Tensor:
    """See ``decomposed_attention``."""
    return _forward(list(operands[:3]), *operands[3:])


class _Blocks:
    """Inputs as stacks [G, N, ...], their blocks of queries, and the buffers the blocks share."""

    def __init__(
        self,
        qkv: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        size: Sequence[int],
        scale: float,
        content: bool,
    ) -> None:
        self.dtype = softmax_dtype(qkv[0].dtype)
        self.is_narrow = self.dtype != qkv[0].dtype
        self.size, self.content = tuple(size), content
        # Products in half precision would copy a strided operand for every block.
        self.q, self.k, self.v = (t.flatten(0, 1).contiguous() for t in qkv)
        # A product in float16 might overflow before it is scaled.
        self.scaled_q, self.alpha = (self.q * scale, 1.0) if self.is_narrow else (self.q, scale)
        # Shaped to be broadcast over [G, M, H, W].
        self.biases = [
            bias.flatten(0, 1).to(self.dtype).unsqueeze(axis)
            for bias, axis in zip(biases, (-1, -2), strict=True)
            if bias is not None
        ]
        self.groups, self.n, _ = self.v.shape
        self._buffers: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Slices of (groups, queries) whose logits fit the block size of the device."""
        budget = _BLOCK_ELEMENTS.get(self.v.device.type, _BLOCK_ELEMENTS["cuda"])
        most = max(1, min(self.n, max(_SMALLEST_BLOCK_ROWS, budget // max(self.n, 1))))
        # As many blocks, of equal rows: a small last one would be slow for its size.
        rows = max(1, math.ceil(self.n / math.ceil(self.n / most)))
        together = max(1, budget // (rows * max(self.n, 1)))
        for first in range(0, self.groups, together):
            for row in range(0, self.n, rows):
                yield (
                    slice(first, min(first + together, self.groups)),
                    slice(row, min(row + rows, self.n)),
                )

    def buffer(self, name: str, g: slice, m: slice, dtype: torch.dtype) -> Tensor:
        """Return [G, M, N] in memory that the next block reuses."""
        shape = (g.stop - g.start, m.stop - m.start, self.n)
        elements = math.prod(shape)
        if name not in self._buffers:  # the first block is the largest
            self._buffers[name] = self.v.new_empty(elements, dtype=dtype)
        return self._buffers[name][:elements].view(shape)

    def probabilities(self, g: slice, m: slice) -> Tensor:
        """Softmax of the logits of a block, [G, M, N] in the dtype of the softmax."""
        logits = self.buffer("logits", g, m, self.dtype)
        cells = logits.unflatten(-1, self.size)
        biases = [bias[g, m] for bias in self.biases]
        if self.content and self.is_narrow:
            logits.copy_(self.narrow_product(self.scaled_q[g, m], self.k[g].mT, g, m))
            for bias in biases:
                cells.add_(bias)
        else:
            if len(biases) == 2:
                torch.add(*biases, out=cells)
            elif biases:
                cells.copy_(biases[0])
            else:
                cells.zero_()
            if self.content:
                logits.baddbmm_(self.scaled_q[g, m], self.k[g].mT, alpha=self.alpha)
        return torch.softmax(logits, -1, out=logits)

    def gradient_of_logits(self, probabilities: Tensor, grad: Tensor, g: slice, m: slice) -> Tensor:
        """[G, M, N] in the dtype of the softmax, from the output's gradient [G, M, d]."""
        grads = self.buffer("gradient", g, m, self.dtype)
        if self.is_narrow:
            grads.copy_(self.narrow_product(grad, self.v[g].mT, g, m))
        else:
            torch.bmm(grad, self.v[g].mT, out=grads)
        return torch._softmax_backward_data(
            grads, probabilities, -1, probabilities.dtype, grad_input=grads
        )

    def narrow_product(self, left: Tensor, right: Tensor, g: slice, m: slice) -> Tensor:
        return torch.bmm(left, right, out=self.buffer("narrow", g, m, self.v.dtype))

    def narrowed(self, wide: Tensor, g: slice, m: slice) -> Tensor:
        """A block in the dtype of the inputs."""
        if not self.is_narrow:
            return wide
        return self.buffer("narrow", g, m, self.v.dtype).copy_(wide)


@torch.library.custom_op("botvision::chunked_attention", mutates_args=())
def _forward(
    qkv: Sequence[Tensor],
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    size: Sequence[int],
    scale: float,
    content: bool,
) -> Tensor:
    out = qkv[2].new_empty(qkv[2].shape)
    out3 = out.flatten(0, 1)
    blocks = _Blocks(qkv, (bias_h, bias_w), size, scale, content)
    for g, m in blocks:
        weights = blocks.narrowed(blocks.probabilities(g, m), g, m)
        torch.bmm(weights, blocks.v[g], out=out3[g, m])
    return out


@torch.library.custom_op("botvision::chunked_attention_backward", mutates_args=())
def _backward(
    grad_out: Tensor,
    qkv: Sequence[Tensor],
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    size: Sequence[int],
    scale: float,
    content: bool,
) -> list[Tensor]:
    blocks = _Blocks(qkv, (bias_h, bias_w), size, scale, content)
    grads = empty_gradients(qkv, bias_h, bias_w, content)
    grad_q, *others = (grad.flatten(0, 1) for grad in grads)
    # Keys and values collect a term from every block and the biases one from every key, so they
    # are summed in the wider dtype.
    sums = [
        torch.zeros_like(grad, dtype=blocks.dtype) if blocks.is_narrow else grad.zero_()
        for grad in others
    ]
    sum_k, sum_v, *bias_sums = sums
    grad_out3 = grad_out.flatten(0, 1).contiguous()
    for g, m in blocks:
        weights = blocks.probabilities(g, m)
        _add_product(sum_v[g], blocks.narrowed(weights, g, m).mT, grad_out3[g, m])
        grad_logits = blocks.gradient_of_logits(weights, grad_out3[g, m], g, m)
        cells = grad_logits.unflatten(-1, blocks.size)
        for bias, bias_sum, axis in zip((bias_h, bias_w), bias_sums, (-1, -2), strict=True):
            if bias is not None:
                torch.sum(cells, axis, out=bias_sum[g, m])
        if content:
            narrow = blocks.narrowed(grad_logits, g, m)
            torch.bmm(narrow, blocks.k[g], out=grad_q[g, m])
            _add_product(sum_k[g], narrow.mT, blocks.scaled_q[g, m], blocks.alpha)
    grad_q.mul_(scale)
    for grad, total in zip(others, sums, strict=True):
        grad.copy_(total)
    return grads


def _add_product(total: Tensor, left: Tensor, right: Tensor, alpha: float = 1.0) -> None:
    """Total += alpha * left @ right for [G, a, b] stacks, in the dtype of ``total``."""
    if left.dtype == total.dtype:
        total.baddbmm_(left, right, alpha=alpha)
    else:
        product = torch.bmm(left, right, out=torch.empty_like(total, dtype=left.dtype))
        total.add_(product, alpha=alpha)


@_forward.register_fake
def _(qkv: Sequence[Tensor], *_rest: Any) -> Tensor:
    return qkv[2].new_empty(qkv[2].shape)


@_backward.register_fake
def _(*arguments: Any) -> list[Tensor]:
    _grad_out, qkv, bias_h, bias_w, _size, _scale, content = arguments
    return empty_gradients(qkv, bias_h, bias_w, content)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  # torch's
    qkv, bias_h, bias_w, *ctx.options = inputs
    ctx.save_for_backward(*qkv, bias_h, bias_w)


def _differentiate(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
    *qkv, bias_h, bias_w = ctx.saved_tensors
    grads = _backward(grad_out, qkv, bias_h, bias_w, *ctx.options)
    return gradients_of_arguments(grads, bias_h, bias_w, ctx.options[-1])


_forward.register_autograd(_differentiate, setup_context=_save)


_backward.register_autograd(differentiate_backward, setup_context=save_backward)


@register_flop_formula(torch.ops.botvision.chunked_attention)
def _forward_operations(qkv: Any, *inputs: Any, **_: Any) -> int:
    """Count the operations of the products for ``torch.utils.flop_counter``."""
    q, _k, v = qkv
    return 2 * math.prod(q[:3]) * q[2] * (inputs[-1] * q[3] + v[3])


@register_flop_formula(torch.ops.botvision.chunked_attention_backward)
def _backward_operations(_grad_out: Any, qkv: Any, *inputs: Any, **_: Any) -> int:
    """Count those of the backward pass, including the recomputed content product."""
    q, _k, v = qkv
    return 2 * math.prod(q[:3]) * q[2] * (3 * inputs[-1] * q[3] + 2 * v[3])
