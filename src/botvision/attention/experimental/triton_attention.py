"""Decomposed attention on NVIDIA GPUs, by the kernels of ``triton_kernels``; not timed yet.

Two custom operators, the second the derivative of the first: ``torch.compile`` does not look into
them, so that a compiled model's graph stays whole.

Triton is imported when they run, not with this file.
"""

from typing import Any

import torch
from torch import Tensor

from botvision.attention.experimental.triton_launch import start, with_unit_stride

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_WIDEST_HEAD = 256


def triton_attention(
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
    """See ``decomposed_attention``; float16, bfloat16 or float32, and heads at most 256 wide.

    Raises:
        ValueError: On another dtype, wider heads or tensors that are not on a GPU.
        ImportError: If triton is not installed.
    """
    if q.dtype not in _DTYPES:
        names = ", ".join(str(dtype) for dtype in _DTYPES)
        raise ValueError(f"impl 'triton': expected one of {names}, got {q.dtype}")
    widest = max(q.shape[-1], v.shape[-1])
    if widest > _WIDEST_HEAD:
        raise ValueError(f"impl 'triton': expected heads at most {_WIDEST_HEAD} wide, got {widest}")
    out, _ = _attention(q, k, v, bias_h, bias_w, *size, float(scale), content)
    return out


@torch.library.custom_op("botvision::triton_attention", mutates_args=())
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    height: int,
    width: int,
    scale: float,
    content: bool,
) -> tuple[Tensor, Tensor]:
    """Return the output and the log-sum-exp to the base 2, [B, heads, N] in float32."""
    out, log_sum_exp = _empty_outputs(q, k, v)
    if log_sum_exp.numel():
        start(
            "forward_kernel",
            with_unit_stride(q=q, k=k, v=v, bias_h=bias_h, bias_w=bias_w),
            {"out": out, "log_sum_exp": log_sum_exp},
            size=(height, width),
            scale=scale,
            content=content,
        )
    return out, log_sum_exp


@_attention.register_fake
def _empty_outputs(q: Tensor, _k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("botvision::triton_attention_backward", mutates_args=())
def _attention_backward(
    grad_out: Tensor,
    out: Tensor,
    log_sum_exp: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    height: int,
    width: int,
    scale: float,
    content: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, bias_h and bias_w; those of unused inputs are empty."""
    grads = _empty_gradients(
        grad_out, out, log_sum_exp, q, k, v, bias_h, bias_w, height, width, scale, content
    )
    if not log_sum_exp.numel():
        return grads
    grad_q, grad_k, grad_v, grad_h, grad_w = grads
    inputs = with_unit_stride(q=q, k=k, v=v, bias_h=bias_h, bias_w=bias_w, grad_out=grad_out)
    problem: dict[str, Any] = {"size": (height, width), "scale": scale, "content": content}
    delta = torch.empty_like(log_sum_exp)
    # The kernel adds to a row's gradient tile by tile, hence the wider dtype.
    sums_h = torch.empty_like(grad_h, dtype=torch.float32)
    start(
        "query_gradient_kernel",
        inputs,
        {
            "out": out,
            "log_sum_exp": log_sum_exp,
            "delta": delta,
            "grad_q": grad_q,
            "grad_h": sums_h,
            "grad_w": grad_w,
        },
        **problem,
    )
    start(
        "key_gradient_kernel",
        inputs,
        {"log_sum_exp": log_sum_exp, "delta": delta, "grad_k": grad_k, "grad_v": grad_v},
        **problem,
    )
    return grad_q, grad_k, grad_v, sums_h.to(grad_h.dtype), grad_w


@_attention_backward.register_fake
def _empty_gradients(
    _grad_out: Tensor,
    _out: Tensor,
    _log_sum_exp: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    _height: int,
    _width: int,
    _scale: float,
    content: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    q_like, k_like, v_like, h_like, w_like = (
        q.new_empty(0 if tensor is None else tensor.shape)
        for tensor in (q if content else None, k if content else None, v, bias_h, bias_w)
    )
    return q_like, k_like, v_like, h_like, w_like


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.height, ctx.width, ctx.scale, ctx.content = inputs
    ctx.save_for_backward(*output, *tensors)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    out, log_sum_exp, q, k, v, bias_h, bias_w = ctx.saved_tensors
    grad_q, grad_k, grad_v, grad_h, grad_w = _attention_backward(
        grad_out,
        out,
        log_sum_exp,
        q,
        k,
        v,
        bias_h,
        bias_w,
        ctx.height,
        ctx.width,
        ctx.scale,
        ctx.content,
    )
    return (
        grad_q if ctx.content else None,
        grad_k if ctx.content else None,
        grad_v,
        None if bias_h is None else grad_h,
        None if bias_w is None else grad_w,
        *(None, None, None, None),
    )


_attention.register_autograd(_differentiate, setup_context=_keep)
