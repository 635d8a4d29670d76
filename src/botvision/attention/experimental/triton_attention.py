"""Decomposed attention on NVIDIA GPUs, by the kernels of ``triton_kernels``; not timed yet.

Two custom operators, the second the derivative of the first: ``torch.compile`` does not look into
them, so that a compiled model's graph stays whole.

Triton is imported when they run, not with this file.
"""

import math
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from botvision.attention.operation import Operands, empty_gradients, gradients_of_arguments

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_WIDEST_HEAD = 256
_NARROWEST_DOT = 16
_TILE_COLUMNS = (16, 32, 64)


def triton_attention(operands: Operands) -> Tensor:
    """See ``decomposed_attention``; float16, bfloat16 or float32, and heads at most 256 wide.

    Raises:
        ValueError: On another dtype, wider heads or tensors that are not on a GPU.
        ImportError: If triton is not installed.
    """
    q, k, v, bias_h, bias_w, size, scale, content = operands
    if q.dtype not in _DTYPES:
        names = ", ".join(str(dtype) for dtype in _DTYPES)
        raise ValueError(f"impl 'triton': expected one of {names}, got {q.dtype}")
    widest = max(q.shape[-1], v.shape[-1])
    if widest > _WIDEST_HEAD:
        raise ValueError(f"impl 'triton': expected heads at most {_WIDEST_HEAD} wide, got {widest}")
    out, _ = _attention([q, k, v], bias_h, bias_w, size, float(scale), content)
    return out


@torch.library.custom_op("botvision::triton_attention", mutates_args=())
def _attention(
    qkv: Sequence[Tensor],
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    size: Sequence[int],
    scale: float,
    content: bool,
) -> tuple[Tensor, Tensor]:
    """Return the output and the log-sum-exp to the base 2, [B, heads, N] in float32."""
    out, log_sum_exp = _empty_outputs(qkv)
    if log_sum_exp.numel():
        q, k, v = qkv
        inputs = {"q": q, "k": k, "v": v, "bias_h": bias_h, "bias_w": bias_w}
        buffers = {"out": out, "log_sum_exp": log_sum_exp}
        _start("forward_kernel", inputs, buffers, size=size, scale=scale, content=content)
    return out, log_sum_exp


@_attention.register_fake
def _empty_outputs(qkv: Sequence[Tensor], *_: Any) -> tuple[Tensor, Tensor]:
    q, _k, v = qkv
    return v.new_empty(v.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("botvision::triton_attention_backward", mutates_args=())
def _attention_backward(
    grad_out: Tensor,
    out: Tensor,
    log_sum_exp: Tensor,
    qkv: Sequence[Tensor],
    bias_h: Tensor | None,
    bias_w: Tensor | None,
    size: Sequence[int],
    scale: float,
    content: bool,
) -> list[Tensor]:
    """Return the gradients of q, k, v, bias_h and bias_w; those of unused inputs are empty."""
    grads = empty_gradients(qkv, bias_h, bias_w, content)
    if not log_sum_exp.numel():
        return grads
    grad_q, grad_k, grad_v, grad_h, grad_w = grads
    q, k, v = qkv
    inputs = {"q": q, "k": k, "v": v, "bias_h": bias_h, "bias_w": bias_w, "grad_out": grad_out}
    saved = {"log_sum_exp": log_sum_exp, "delta": torch.empty_like(log_sum_exp)}
    # The kernel adds to a row's gradient tile by tile, hence the wider dtype.
    sums_h = torch.empty_like(grad_h, dtype=torch.float32)
    to_queries = {"out": out, **saved, "grad_q": grad_q, "grad_h": sums_h, "grad_w": grad_w}
    to_keys = {**saved, "grad_k": grad_k, "grad_v": grad_v}
    for kernel, buffers in (
        ("query_gradient_kernel", to_queries),
        ("key_gradient_kernel", to_keys),
    ):
        _start(kernel, inputs, buffers, size=size, scale=scale, content=content)
    return [grad_q, grad_k, grad_v, sums_h.to(grad_h.dtype), grad_w]


@_attention_backward.register_fake
def _(*arguments: Any) -> list[Tensor]:
    *_, qkv, bias_h, bias_w, _size, _scale, content = arguments
    return empty_gradients(qkv, bias_h, bias_w, content)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, bias_h, bias_w, *ctx.options = inputs
    ctx.save_for_backward(*output, *qkv, bias_h, bias_w)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Any, ...]:
    out, log_sum_exp, *qkv, bias_h, bias_w = ctx.saved_tensors
    grads = _attention_backward(grad_out, out, log_sum_exp, qkv, bias_h, bias_w, *ctx.options)
    return gradients_of_arguments(grads, bias_h, bias_w, ctx.options[-1])


_attention.register_autograd(_differentiate, setup_context=_keep)


class Launch(NamedTuple):
    """Configuration of a kernel: its arguments, constexpr parameters and Triton's options."""

    programs: int
    arguments: dict[str, Any]
    constants: dict[str, Any]
    options: dict[str, Any]


def _start(
    kernel: str,
    inputs: Mapping[str, Tensor | None],
    buffers: Mapping[str, Tensor],
    **problem: Any,
) -> None:
    """Start a kernel on the GPU of its inputs."""
    q = inputs["q"]
    assert q is not None
    # The kernels take any other strides.
    inputs = {
        name: tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()
        for name, tensor in inputs.items()
    }
    hopper = q.is_cuda and torch.cuda.get_device_capability(q.device)[0] == 9
    launch = configure(kernel, inputs, buffers, hopper=hopper, **problem)
    function = getattr(_kernels(q.device), kernel)
    with torch.cuda.device_of(q):
        function[(launch.programs,)](**launch.arguments, **launch.constants, **launch.options)


def configure(
    kernel: str,
    inputs: Mapping[str, Tensor | None],
    buffers: Mapping[str, Tensor],
    *,
    size: Sequence[int],
    scale: float,
    content: bool,
    hopper: bool,
) -> Launch:
    """Return the configuration of a kernel for a dtype and a width of heads.

    Chosen from the compiler's reports for compute capabilities 8.0 to 9.0 and NOT TIMED: the
    largest blocks that spill next to no registers. Except on Hopper they fit into 99 KiB of
    shared memory, which is what small GPUs have.

    Args:
        kernel: "forward_kernel", "query_gradient_kernel" or "key_gradient_kernel".
        inputs: Tensors [B, heads, N, any] by parameter, with a last stride of 1.
        buffers: Contiguous tensors by parameter.
        size: (H, W) of the map.
        scale: Factor of the content logits.
        content: Whether the content logits take part.
        hopper: Whether the GPU's compute capability is 9.0.
    """
    q, v = inputs["q"], inputs["v"]
    assert q is not None
    assert v is not None
    batch, heads, n, dim = q.shape
    value_dim = v.shape[-1]
    block_d, block_dv = (max(_NARROWEST_DOT, _next_power_of_2(d)) for d in (dim, value_dim))
    wide = max(block_d, block_dv) > 128
    if q.dtype == torch.float32:
        # Exact products are made without tensor cores, from registers.
        queries, keys, warps = (16, 16, 4) if wide else (32, 32, 8)
    elif wide:
        queries, keys, warps = (32, 32, 8)
    elif not hopper:
        queries, keys, warps = (64, 64, 8)
    else:
        # Hopper multiplies by groups of four warps, each for 64 rows: keys here, queries there.
        queries, keys, warps = (64, 64, 4) if kernel == "key_gradient_kernel" else (128, 64, 8)
    columns = _tile_columns(size[1], keys)
    rows = keys // columns
    if kernel == "key_gradient_kernel":
        programs = batch * heads * math.ceil(size[0] / rows) * math.ceil(size[1] / columns)
    else:
        programs = batch * heads * math.ceil(n / queries)
    arguments: dict[str, Any] = {**inputs, **buffers, "heads": heads, "scale": scale}
    arguments["height"], arguments["width"] = size
    for name, tensor in inputs.items():
        for axis, axis_name in enumerate(("batch", "head", "position")):
            arguments[f"{name}_{axis_name}"] = 0 if tensor is None else tensor.stride(axis)
    constants = {
        "D": dim,
        "DV": value_dim,
        "BLOCK_D": block_d,
        "BLOCK_DV": block_dv,
        "BLOCK_M": queries,
        "ROWS": rows,
        "COLUMNS": columns,
        "CONTENT": content,
        "HAS_BIAS_H": inputs["bias_h"] is not None,
        "HAS_BIAS_W": inputs["bias_w"] is not None,
    }
    # Fused multiply-adds are asked for by name because Triton's default is about to change.
    options = {"num_warps": warps, "num_stages": 2, "enable_fp_fusion": True}
    return Launch(programs, arguments, constants, options)


def _next_power_of_2(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def _tile_columns(width: int, keys: int) -> int:
    """Return the columns of a key tile: the widest that leave the fewest beyond the map."""
    if width <= _TILE_COLUMNS[0]:
        return _next_power_of_2(width)
    fitting = [columns for columns in _TILE_COLUMNS if columns <= keys]
    return min(fitting, key=lambda columns: (math.ceil(width / columns) * columns, -columns))


def _kernels(device: torch.device) -> ModuleType:
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"impl 'triton': expected tensors on a GPU, got {device}")
    try:
        from botvision.attention.experimental import triton_kernels
    except ModuleNotFoundError as error:
        raise ImportError(
            "impl 'triton': expected the package triton, which PyTorch's CUDA builds for Linux "
            "include; install one of them or choose another impl"
        ) from error
    return triton_kernels
