"""Configuration and launch of the kernels of ``triton_kernels``.

Triton is imported when a kernel starts, not with this file.
"""

import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

_NARROWEST_DOT = 16
_TILE_COLUMNS = (16, 32, 64)


class Launch(NamedTuple):
    """Launch configuration of a kernel.

    Attributes:
        programs: Number of programs.
        arguments: Tensors, strides and numbers by parameter.
        constants: Values of the constexpr parameters.
        options: Triton's options, such as the number of warps.
    """

    programs: int
    arguments: dict[str, Any]
    constants: dict[str, Any]
    options: dict[str, Any]


def start(
    kernel: str,
    inputs: Mapping[str, Tensor | None],
    buffers: Mapping[str, Tensor | None],
    *,
    size: tuple[int, int],
    scale: float,
    content: bool,
) -> None:
    """Start a kernel on the GPU of its inputs; see ``configure``."""
    q = inputs["q"]
    assert q is not None
    hopper = q.is_cuda and torch.cuda.get_device_capability(q.device)[0] == 9
    programs, arguments, constants, options = configure(
        kernel, inputs, buffers, size=size, scale=scale, content=content, hopper=hopper
    )
    function = getattr(_kernels(q.device), kernel)
    with torch.cuda.device_of(q):
        function[(programs,)](**arguments, **constants, **options)


def configure(
    kernel: str,
    inputs: Mapping[str, Tensor | None],
    buffers: Mapping[str, Tensor | None],
    *,
    size: tuple[int, int],
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
        inputs: Tensors [B, heads, N, any] by parameter, see ``with_unit_stride``.
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
        programs = batch * heads * _ceil_div(size[0], rows) * _ceil_div(size[1], columns)
    else:
        programs = batch * heads * _ceil_div(n, queries)
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


def with_unit_stride(**tensors: Tensor | None) -> dict[str, Tensor | None]:
    """Return the tensors with a last stride of 1; the kernels take any other strides."""
    return {
        name: tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()
        for name, tensor in tensors.items()
    }


def _next_power_of_2(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _tile_columns(width: int, keys: int) -> int:
    """Return the columns of a key tile: the widest that leave the fewest beyond the map."""
    if width <= _TILE_COLUMNS[0]:
        return _next_power_of_2(width)
    fitting = [columns for columns in _TILE_COLUMNS if columns <= keys]
    return min(fitting, key=lambda columns: (_ceil_div(width, columns) * columns, -columns))


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
