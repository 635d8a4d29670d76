"""Derivatives of an implementation's backward pass, by way of the reference: memory N x N.

Second derivatives, as of gradient penalties, are rare, and the reference has derivatives of every
order.
"""

from typing import Any

import torch
from torch import Tensor

from botvision.attention.operation import Operands
from botvision.attention.reference import reference_attention


def save_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:  # noqa: ARG001
    """Save the inputs of a backward operator (grad_out, qkv, bias_h, bias_w, options)."""
    grad_out, qkv, bias_h, bias_w, *ctx.options = inputs
    ctx.save_for_backward(grad_out, *qkv, bias_h, bias_w)


def differentiate_backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    """Return the derivative of a backward operator, see ``torch.library.register_autograd``.

    Args:
        ctx: Context of ``save_backward``.
        grads: Gradients of the operator's results, in the memory of ``empty_gradients``.
    """
    size, scale, content = ctx.options
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, for a bias may itself depend on q. Of tensors without gradient no derivative is
        # asked, but they go through the same lines.
        leaves: list[Any] = [
            t if t is None else t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
            for t in ctx.saved_tensors
        ]
        grad_out, q, k, v, bias_h, bias_w = leaves
        out = reference_attention(Operands(q, k, v, bias_h, bias_w, tuple(size), scale, content))
        used = [t for t in (*((q, k, v) if content else (v,)), bias_h, bias_w) if t is not None]
        first = torch.autograd.grad(out, used, grad_out, create_graph=True)
        second = torch.autograd.grad(
            first,
            [t for t in leaves if t is not None],
            [grad for grad in grads if grad.numel()],
            create_graph=create_graph,
            allow_unused=True,
        )
    found = iter(second)
    of_grad_out, *of_inputs = [None if t is None else next(found) for t in leaves]
    return of_grad_out, of_inputs[:3], *of_inputs[3:], None, None, None
