"""The public attention function: checks its inputs and chooses an implementation."""

import torch
from torch import Tensor

from botvision.attention.chunked import chunked_attention
from botvision.attention.experimental.flex import flex_attention
from botvision.attention.experimental.triton_attention import triton_attention
from botvision.attention.fused import fused_attention
from botvision.attention.operation import Implementation, Operands
from botvision.attention.reference import reference_attention
from botvision.attention.transforms import is_recorded, is_tracing, needs_plain_operations

IMPLEMENTATIONS: dict[str, Implementation] = {
    "reference": reference_attention,
    "chunked": chunked_attention,
    "fused": fused_attention,
    "flex": flex_attention,
    "triton": triton_attention,
}
"""Implementations by name. All compute the same function; "reference" is the specification."""

# Operators of ``torch.library``. Forward-mode derivatives of such would be zero without a word.
_OPERATORS = ("chunked", "triton")


def decomposed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias_h: Tensor | None = None,
    bias_w: Tensor | None = None,
    *,
    size: tuple[int, int],
    scale: float | None = None,
    content: bool = True,
    impl: str = "auto",
) -> Tensor:
    """Softmax attention over a 2-D map whose position bias splits into rows and columns.

    With keys numbered row-major over a map of ``size`` = (H, W)::

        logits[i, j] = scale * (q_i . k_j) + bias_h[i, row(j)] + bias_w[i, col(j)]
        out_i = sum_j softmax_j(logits[i, :]) v_j

    Every position encoding of the paper's table 4 has this form (equation of section 3.1: a
    relative logit q . r with r = R_h + R_w), so no N x N bias is ever needed.

    Args:
        q: Queries, [B, heads, N, d] with N = H * W.
        k: Keys, [B, heads, N, d].
        v: Values, [B, heads, N, d_v].
        bias_h: Logit added for each key row, [B, heads, N, H]; already scaled. None: no bias.
        bias_w: Logit added for each key column, [B, heads, N, W]; already scaled. None: no bias.
        size: (H, W) of the map.
        scale: Factor of the content logits; d ** -0.5 if None.
        content: False leaves the content logits out (table 4, "relative alone").
        impl: "auto" or an implementation:

            * "reference": plain operations, memory N x N;
            * "chunked": blocks of queries, recomputed in the backward pass, memory N; any device;
            * "fused": torch's fused attention over heads widened by the biases; any device;
            * "flex": FlexAttention, compiled at the first call; CUDA; experimental;
            * "triton": Triton kernels, memory N; CUDA, at most float32, heads up to 256 wide;
              experimental.

            "auto" is the choice of ``automatic_implementation``, which is never an experimental
            implementation: those have not been timed on a GPU yet.

    Returns:
        [B, heads, N, d_v] in the dtype of ``v``. float16 and bfloat16 inputs take their softmax
        in float32.

    Raises:
        ValueError: On an unknown ``impl`` or on shapes, dtypes or devices that do not agree.
    """
    if not is_tracing():  # which would record the comparisons
        _check(q, size, k=k, v=v, bias_h=bias_h, bias_w=bias_w)
    check_implementation(impl)
    plain = needs_plain_operations(q, k, v, bias_h, bias_w)
    if impl == "auto":
        name = "reference" if plain else automatic_implementation(q, v, size)
    else:
        name = impl
    if name in _OPERATORS and plain:
        raise ValueError(
            "impl: expected 'auto' or 'reference' under torch.func and for forward-mode "
            "derivatives, got "
            f"{name!r}, which has no rules for them"
        )
    if scale is None:
        scale = float(q.shape[-1]) ** -0.5
    return IMPLEMENTATIONS[name](Operands(q, k, v, bias_h, bias_w, size, scale, content))


# The widest head for which FlashAttention has a kernel.
_WIDEST_FLASH_HEAD = 256


def automatic_implementation(q: Tensor, v: Tensor, size: tuple[int, int]) -> str:
    """Return the name of the implementation that "auto" stands for.

    * While a model is exported or traced: "reference", the plain operations that other programs
      can read. An exported model therefore holds N x N logits.
    * Under transforms of ``torch.func`` (vmap, grad, jvp, ...) and for forward-mode derivatives:
      "reference", for whose operations torch has all rules.
    * On a CUDA device in half precision, where the heads widened by both biases fit
      FlashAttention (d + H + W <= 256; a 64 x 64 map with heads of 128 just does): "fused".
    * Otherwise "chunked".

    The rule for the CPU was measured; that for CUDA was not, see docs/performance.md.
    """
    if is_recorded() or needs_plain_operations(q, v):
        return "reference"
    widest = max(q.shape[-1] + sum(size), v.shape[-1])
    half = q.dtype in (torch.float16, torch.bfloat16)
    if q.device.type == "cuda" and half and widest <= _WIDEST_FLASH_HEAD:
        return "fused"
    return "chunked"


def check_implementation(impl: str) -> None:
    """Raise ValueError unless ``impl`` is "auto" or the name of an implementation."""
    names = ["auto", *IMPLEMENTATIONS]
    if impl not in names:
        raise ValueError(f"impl: expected one of {', '.join(names)}, got {impl!r}")


def _check(q: Tensor, size: tuple[int, int], **others: Tensor | None) -> None:
    if q.ndim != 4:
        raise ValueError(f"q: expected [B, heads, N, d], got shape {tuple(q.shape)}")
    n, dim = q.shape[2:]
    if size[0] * size[1] != n:
        raise ValueError(f"size: expected H * W = {n} (q's third dimension), got {size}")
    widths = {"k": dim, "bias_h": size[0], "bias_w": size[1]}
    for name, tensor in others.items():
        if tensor is None:
            continue
        shape = (*q.shape[:3], widths.get(name, tensor.shape[-1]))
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
        if tensor.dtype != q.dtype or tensor.device != q.device:
            raise ValueError(
                f"{name}: expected {q.dtype} on {q.device} like q, "
                f"got {tensor.dtype} on {tensor.device}"
            )
