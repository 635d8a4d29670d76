"""Two-dimensional multi-head self-attention with decomposed position encodings.

The paper's one new operation (section 3, figure 4). Needs torch alone.
"""

from botvision.attention.decomposed_attention import IMPLEMENTATIONS, decomposed_attention
from botvision.attention.health import LayerHealth, attention_health
from botvision.attention.layer import MultiHeadSelfAttention2d
from botvision.attention.positions import (
    AbsolutePosition2d,
    RelativePosition2d,
    resize_position_table,
)

__all__ = [
    "IMPLEMENTATIONS",
    "AbsolutePosition2d",
    "LayerHealth",
    "MultiHeadSelfAttention2d",
    "RelativePosition2d",
    "attention_health",
    "decomposed_attention",
    "resize_position_table",
]
