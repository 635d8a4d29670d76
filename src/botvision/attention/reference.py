"""The specification of decomposed attention in plain operations, N x N logits and all."""

from torch import Tensor

from botvision.attention.operation import Operands, softmax_dtype


def reference_attention(operands: Operands) -> Tensor:
    """See ``decomposed_attention``."""
    return attention_probabilities(operands).to(operands.v.dtype) @ operands.v


def attention_probabilities(operands: Operands) -> Tensor:
    """Return the softmax of the decomposed logits, [B, heads, M, N], in float32 or better.

    The M queries, and the biases with them, may be any subset of the map's N positions.
    """
    q, k, _, bias_h, bias_w, size, scale, content = operands
    dtype = softmax_dtype(q.dtype)
    terms = []
    if content:
        terms.append(((q * scale) @ k.transpose(-1, -2)).to(dtype).unflatten(-1, size))
    if bias_h is not None:
        terms.append(bias_h.to(dtype).unsqueeze(-1))
    if bias_w is not None:
        terms.append(bias_w.to(dtype).unsqueeze(-2))
    # Expanded only where a single bias is all there is: a trace would keep the shape of zeros that
    # the terms were added to.
    logits = sum(terms[1:], terms[0]) if terms else q.new_zeros(())
    if len(terms) < 2 and not content:
        logits = logits.expand(*q.shape[:-1], *size)
    return logits.flatten(-2).softmax(dim=-1)
