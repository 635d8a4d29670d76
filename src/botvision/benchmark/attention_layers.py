"""Attention layers of the benchmark: ours and others that compute the same function."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botvision.attention import IMPLEMENTATIONS, MultiHeadSelfAttention2d
from botvision.benchmark.measuring import Prepared

SMALL_SIZE = (4, 4)
"""Map on which a layer is tried and warmed up."""


class MaskedAttention(nn.Module):
    """Our projection and positions with torch's attention, the bias being an N x N mask.

    This is the straightforward way to use ``F.scaled_dot_product_attention``.

    Args:
        dim: Number of channels.
        num_heads: Number of attention heads.
        size: (H, W) of the map.
    """

    def __init__(self, dim: int, num_heads: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.ours = MultiHeadSelfAttention2d(dim, num_heads, position_size=size)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over ``x``, [B, C, H, W]."""
        rows = F.linear(x.flatten(2).mT, self.ours.qkv.weight.flatten(1))
        q, k, v = rows.unflatten(-1, (3, self.ours.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q = q * self.ours.scale
        bias_h, bias_w = self.ours.position(q, (x.shape[2], x.shape[3]))
        mask = (bias_h.unsqueeze(-1) + bias_w.unsqueeze(-2)).flatten(-2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return out.mT.reshape(x.shape)


def _lucidrains(dim: int, heads: int, size: tuple[int, int]) -> nn.Module:
    from bottleneck_transformer_pytorch.bottleneck_transformer_pytorch import (  # type: ignore[import-untyped]
        Attention,
    )

    return Attention(dim=dim, fmap_size=size, heads=heads, dim_head=dim // heads, rel_pos_emb=True)


def _timm(dim: int, heads: int, size: tuple[int, int]) -> nn.Module:
    from timm.layers.bottleneck_attn import BottleneckAttn

    return BottleneckAttn(
        dim, feat_size=size, num_heads=heads, dim_head=dim // heads, scale_pos_embed=True
    )


PEERS: dict[str, Callable[[int, int, tuple[int, int]], nn.Module]] = {
    "bottleneck-transformer-pytorch": _lucidrains,
    "timm": _timm,
    "sdpa-mask": MaskedAttention,
}
"""Constructors of other layers of the same function, from channels, heads and (H, W)."""


def layer_names() -> list[str]:
    """Return the names of all layers: "auto", our implementations, the peers."""
    return ["auto", *IMPLEMENTATIONS, *PEERS]


def layer_title(name: str) -> str:
    """Return the name for tables and plots."""
    titles = {"timm": "timm BottleneckAttn", "sdpa-mask": "SDPA with a mask"}
    return titles.get(name, name if name in PEERS else f"botvision {name}")


def prepare_layer(
    name: str,
    size: tuple[int, int],
    *,
    batch: int,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: str,
) -> Prepared:
    """Return a layer with relative positions and its input, [B, C, H, W], which requires grad."""
    dim = heads * head_dim
    layer = (
        PEERS[name](dim, heads, size)
        if name in PEERS
        else MultiHeadSelfAttention2d(dim, heads, position_size=size, impl=name)
    )
    x = torch.randn(batch, dim, *size, device=device).to(dtype)
    return layer.to(device, dtype), x.requires_grad_()


def attention_operations(batch: int, heads: int, head_dim: int, size: tuple[int, int]) -> int:
    """Count the operations of the products in a forward pass, two per multiply-add.

    With N = H * W positions and C channels: the projection 2 N C 3C, content logits and values
    2 N N C each, position logits 2 N C (H + W). Anything that a layer computes beyond this is not
    counted as its work.

    Args:
        batch: Batch size.
        heads: Number of attention heads.
        head_dim: Channels per head.
        size: (H, W) of the map.
    """
    (height, width), dim = size, heads * head_dim
    n = height * width
    return batch * (2 * n * dim * 3 * dim + 4 * n * n * dim + 2 * n * dim * (height + width))
