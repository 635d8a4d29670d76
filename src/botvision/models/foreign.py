"""Convert the BoTNets of other packages: replace their attention in place by botvision's."""

import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn

from botvision.attention import MultiHeadSelfAttention2d
from botvision.models.bottleneck_transformer import halving_pool

_LUCIDRAINS = "bottleneck_transformer_pytorch.bottleneck_transformer_pytorch"
_Position = Literal["relative", "absolute"]


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
        position: _Position,
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

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        qkv = self.qkv(x).flatten(2).transpose(1, 2)
        parts = qkv.split([self._keys, self._keys, qkv.shape[2] - 2 * self._keys], dim=-1)
        return [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts]


class ConvertedBottleneckAttn(nn.Sequential):
    """Replacement of timm's ``BottleneckAttn``: modules ``attention`` and ``pool``.

    ``load_state_dict`` takes the parameters of timm's layout too, as trained weights have them.

    Attributes:
        table_scale: Factor from timm's position tables to ``attention``'s.
    """

    table_scale: float = 1.0

    def originals(self) -> dict[str, tuple[str, float]]:
        """Return the parameters by timm's names: their own names, and the factor to them."""
        return {
            "pos_embed.height_rel": ("attention.position.height", self.table_scale),
            "pos_embed.width_rel": ("attention.position.width", self.table_scale),
            **{
                f"qkv.{name}": (f"attention.qkv.{name}", 1.0)
                for name, _ in self.get_submodule("attention.qkv").named_parameters(recurse=False)
            },
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for theirs, (own, factor) in self.originals().items():
            if prefix + theirs in state_dict:
                state_dict[prefix + own] = state_dict.pop(prefix + theirs) * factor
        super()._load_from_state_dict(state_dict, prefix, *args)


def count_fixed_attention(network: nn.Module) -> int:
    """Return how many of timm's ``BottleneckAttn``, each for maps of one size, a network has."""
    return sum(isinstance(module, BottleneckAttn) for module in network.modules())


def has_halo_attention(network: nn.Module) -> bool:
    """Return whether a network has timm's ``HaloAttn``, which needs maps of whole blocks."""
    return any(isinstance(module, HaloAttn) for module in network.modules())


def convert_attention(network: nn.Module, *, impl: str = "auto") -> nn.Module:
    """Replace another package's BoTNet attention, so that the network accepts any image size.

    At the size for which it was built the network computes the same. At other sizes, including odd
    and non-square ones, position tables are interpolated and the pooling rounds up as the shortcut
    does. The parameters of the attention are renamed; weights of timm's layout can be loaded before
    or after.

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
    for module in network.modules() if not has_halo_attention(network) else ():
        config = getattr(module, "pretrained_cfg", None)
        if isinstance(config, dict):  # timm's data pipeline reads it
            whole: Any = module
            whole.pretrained_cfg = whole.default_cfg = {**config, "fixed_input_size": False}
    return holder["network"]


def _replacement(module: Any, impl: str) -> nn.Module | None:
    """Return the replacement of a module of another package; None for other modules."""
    if isinstance(module, BottleneckAttn):
        # By default timm's scales q . k by d ** -0.5, but not the position logits.
        factor = 1.0 if module.scale_pos_embed else module.dim_head_qk**0.5
        tables = (module.pos_embed.height_rel, module.pos_embed.width_rel)
        attention = _converted(module.qkv, tables, factor, module.num_heads, "relative", impl)
        pool = halving_pool() if isinstance(module.pool, nn.AvgPool2d) else nn.Identity()
        replacement = ConvertedBottleneckAttn(OrderedDict(attention=attention, pool=pool))
        replacement.table_scale = factor
        return replacement.train(module.training)
    package: Any = sys.modules.get(_LUCIDRAINS)  # if it is not imported, no module is its
    if package is not None and isinstance(module, package.BottleStack):
        # The blocks without the check of the map's size; their parameters keep their names.
        stack = nn.Sequential(OrderedDict(net=module.net))
        stack.training = module.net.training
        return stack
    if package is not None and isinstance(module, package.Attention):
        table = module.pos_emb
        relative = isinstance(table, package.RelPosEmb)
        tables = (table.rel_height, table.rel_width) if relative else (table.height, table.width)
        position: _Position = "relative" if relative else "absolute"
        # It scales the queries, as the paper does.
        attention = _converted(module.to_qkv, tables, 1.0, module.heads, position, impl)
        return attention.train(module.training)
    return None


def _converted(
    qkv: nn.Conv2d,
    tables: tuple[Tensor, Tensor],
    factor: float,
    num_heads: int,
    position: _Position,
    impl: str,
) -> ConvertedAttention2d:
    """Return the attention with copies of the tables, trainable where the original tables were."""
    height, width = (table.detach() * factor for table in tables)
    attention = ConvertedAttention2d(
        qkv, height, width, num_heads=num_heads, position=position, impl=impl
    )
    attention.position.height.requires_grad_(tables[0].requires_grad)
    attention.position.width.requires_grad_(tables[1].requires_grad)
    return attention
