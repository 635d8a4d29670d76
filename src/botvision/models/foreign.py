"""Convert the BoTNets of other packages: replace their attention in place by botvision's."""

import sys
from collections import OrderedDict
from typing import Any, Literal

from timm.layers.bottleneck_attn import BottleneckAttn
from torch import Tensor, nn

from botvision.attention import MultiHeadSelfAttention2d
from botvision.models.bottleneck_transformer import halving_pool

_LUCIDRAINS = "bottleneck_transformer_pytorch.bottleneck_transformer_pytorch"


class ConvertedAttention2d(MultiHeadSelfAttention2d):
    """Attention with another package's projections: [B, C, H, W] to [B, C_out, H, W].

    The keys may be narrower than the values (timm's ``eca_botnext26ts_256``), C_out may differ from
    C, and the projections may have a bias.

    Args:
        qkv: The 1x1 convolution to q | k | v, head-major in each; kept, not copied.
        height: Position table of the rows, for queries multiplied by key width ** -0.5.
        width: Position table of the columns.
        num_heads: Attention heads.
        position: "relative" or "absolute".
        impl: Implementation of ``decomposed_attention``.
    """

    def __init__(
        self,
        qkv: nn.Conv2d,
        height: Tensor,
        width: Tensor,
        *,
        num_heads: int,
        position: Literal["relative", "absolute"],
        impl: str,
    ) -> None:
        rows, columns = len(height), len(width)
        if position == "relative":
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        self._keys = num_heads * height.shape[1]
        super().__init__(
            self._keys, num_heads, position=position, position_size=(rows, columns), impl=impl
        )
        self.dim = qkv.in_channels
        self.qkv = qkv
        self.position.height = nn.Parameter(height)
        self.position.width = nn.Parameter(width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over ``x``, [B, C, H, W]."""
        return self._attend(x).transpose(2, 3).flatten(1, 2).unflatten(2, (x.shape[2], x.shape[3]))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        qkv = self.qkv(x).flatten(2).transpose(1, 2)
        parts = qkv.split([self._keys, self._keys, qkv.shape[2] - 2 * self._keys], dim=-1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return q, k, v, *self.position(q, (x.shape[2], x.shape[3]), self.scale)


class AnySizeStack(nn.Module):
    """The blocks of a ``BottleStack`` without its check of the map's size.

    Args:
        net: The blocks; their parameters keep their names.
    """

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net
        self.training = net.training

    def forward(self, x: Tensor) -> Tensor:
        """Apply the blocks to ``x``, [B, C, H, W]."""
        out: Tensor = self.net(x)
        return out


def convert_attention(network: nn.Module, *, impl: str = "auto") -> nn.Module:
    """Replace another package's BoTNet attention, so that the network accepts any image size.

    At the size for which it was built the network computes the same. At other sizes, including odd
    and non-square ones, position tables are interpolated and the pooling rounds up as the shortcut
    does. Load the other package's weights first: the parameters of the attention are renamed.

    Supported are timm's ``BottleneckAttn`` (``botnet26t_256``, ``eca_botnext26ts_256``,
    ``sebotnet33ts_256``, ``botnet50ts_256``, and c5 of ``halo2botnet50ts_256`` and
    ``lamhalobotnet50ts_256``, whose halo attention still needs maps divisible by its blocks) and
    the ``BottleStack`` of bottleneck-transformer-pytorch.

    Two differences from the paper are kept: timm scales the content logits only, so its tables are
    multiplied by d ** 0.5; ``BottleStack`` has a 3x3 convolution in its shortcut.

    Args:
        network: Network to convert, or a module that contains it; changed in place.
        impl: Implementation of ``decomposed_attention``.

    Returns:
        ``network``, or its replacement if it is itself an attention module or a ``BottleStack``.

    Raises:
        ValueError: If the network has nothing to convert, or ``impl`` is unknown.
    """
    holder = nn.ModuleDict({"network": network})
    found = [
        (parent, name, replacement)
        for parent in holder.modules()
        for name, child in parent.named_children()
        if (replacement := _replacement(child, impl)) is not None
    ]
    if not found:
        raise ValueError(
            "network: expected one that contains timm's BottleneckAttn or the BottleStack of "
            f"bottleneck-transformer-pytorch, got {type(network).__name__} without them"
        )
    for parent, name, replacement in found:
        setattr(parent, name, replacement)
        if isinstance(replacement, ConvertedAttention2d):  # a BottleStack's: pooling is beside
            for beside, neighbor in parent.named_children():
                if isinstance(neighbor, nn.AvgPool2d):
                    setattr(parent, beside, halving_pool().train(neighbor.training))
    for module in network.modules():
        config = getattr(module, "pretrained_cfg", None)
        if isinstance(config, dict):  # timm's data pipeline reads it
            whole: Any = module
            whole.pretrained_cfg = whole.default_cfg = {**config, "fixed_input_size": False}
    return holder["network"]


def _replacement(module: nn.Module, impl: str) -> nn.Module | None:
    """Return the replacement of a module of another package; None for other modules."""
    if isinstance(module, BottleneckAttn):
        return _from_timm(module, impl)
    package: Any = sys.modules.get(_LUCIDRAINS)  # if it is not imported, no module is its
    if package is not None and isinstance(module, package.BottleStack):
        return AnySizeStack(module.net)
    if package is not None and isinstance(module, package.Attention):
        return _from_lucidrains(
            module, impl, relative=isinstance(module.pos_emb, package.RelPosEmb)
        )
    return None


def _from_timm(module: Any, impl: str) -> nn.Module:
    """Convert timm's, which by default scales q . k by d ** -0.5 but not the position logits."""
    factor = 1.0 if module.scale_pos_embed else module.dim_head_qk**0.5
    tables = module.pos_embed.height_rel, module.pos_embed.width_rel
    attention = ConvertedAttention2d(
        module.qkv,
        *(table.detach() * factor for table in tables),
        num_heads=module.num_heads,
        position="relative",
        impl=impl,
    )
    strided = isinstance(module.pool, nn.AvgPool2d)
    pool = halving_pool() if strided else nn.Identity()
    replacement = nn.Sequential(OrderedDict(attention=_alike(attention, *tables), pool=pool))
    return replacement.train(module.training)


def _from_lucidrains(module: Any, impl: str, *, relative: bool) -> nn.Module:
    """Convert bottleneck-transformer-pytorch's, which scales the queries, as the paper does."""
    encoding = module.pos_emb
    tables = (
        (encoding.rel_height, encoding.rel_width) if relative else (encoding.height, encoding.width)
    )
    attention = ConvertedAttention2d(
        module.to_qkv,
        *(table.detach().clone() for table in tables),
        num_heads=module.heads,
        position="relative" if relative else "absolute",
        impl=impl,
    )
    return _alike(attention, *tables).train(module.training)


def _alike(attention: ConvertedAttention2d, height: Tensor, width: Tensor) -> ConvertedAttention2d:
    """Make the tables trainable where the original tables were."""
    attention.position.height.requires_grad_(height.requires_grad)
    attention.position.width.requires_grad_(width.requires_grad)
    return attention
