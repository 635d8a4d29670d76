"""The specification of decomposed attention in plain operations, N x N logits and all."""

from torch import Tensor

from botvision.attention.operation import attention_probabilities


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
