"""The paper's multi-head self-attention layer over a feature map (figure 4)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botvision.attention.decomposed_attention import check_implementation, decomposed_attention
from botvision.attention.operation import Operands
from botvision.attention.positions import AbsolutePosition2d, RelativePosition2d
from botvision.attention.rows import AttendingLayer
from botvision.attention.transforms import as_leaf, needs_plain_operations

PositionKind = Literal["relative", "absolute", "none"]


class PointwiseConvolution(nn.Conv2d):
    """A 1x1 convolution without bias as a matrix product, which is faster.

    The result is channels last in memory: the features of a position lie side by side.

    Its arguments are those of ``nn.Conv2d``, with other defaults, so that packages that wrap or
    count convolutions can make and read it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: 1; others are refused, as are stride, padding, dilation and groups.
        bias: False; True is refused.
        options: Further arguments of ``nn.Conv2d``, such as ``device`` and ``dtype``.

    Raises:
        ValueError: If it is not a 1x1 convolution of stride 1 without bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        *,
        bias: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=bias, **options)
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        if bias or geometry != ((1, 1), (1, 1), (0, 0), (1, 1), 1):
            raise ValueError(
                "PointwiseConvolution: expected kernel_size 1, stride 1, padding 0, dilation 1, "
                f"groups 1 and no bias, got {self}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels_in, H, W] to [B, channels_out, H, W]."""
        rows = F.linear(x.flatten(2).transpose(1, 2), self.weight.flatten(1))
        return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class MultiHeadSelfAttention2d(AttendingLayer):
    """All-to-all self-attention over a feature map: [B, C, H, W] to [B, C, H, W].

    Differences from a Transformer's layer, all from the paper: queries, keys and values come from
    1x1 convolutions without bias, and there is no output projection. The queries are multiplied
    by d ** -0.5 first, so content and position logits are both scaled (authors' code; timm's
    ``BottleneckAttn`` scales the content logits alone).

    Any height and width are accepted. The position tables are made for ``position_size`` and
    interpolated to other maps, see ``resize_position_table``.

    Args:
        dim: Channels C, a multiple of ``num_heads``.
        num_heads: Attention heads; 4 in the paper.
        position: "relative" (the paper's choice), "absolute" or "none" (table 4).
        content: False leaves q . k out of the logits (table 4, "relative alone").
        position_size: (H, W) of the tables; needed unless ``position`` is "none".
        impl: Implementation of ``decomposed_attention``.

    Attributes:
        qkv: 1x1 convolution to 3C channels, q | k | v, head-major in each.
        position: Module with parameters ``height`` and ``width``, or None.

    Raises:
        ValueError: If the heads do not divide the channels, the tables have no size, or neither
            content nor position is left to attend by.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        *,
        position: PositionKind = "relative",
        content: bool = True,
        position_size: tuple[int, int] | None = None,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of dim = {dim}, got {num_heads}")
        if not content and position == "none":
            raise ValueError("content=False with position='none' leaves nothing to attend by")
        check_implementation(impl)
        self.dim = dim
        self.num_heads = num_heads
        self.content = content
        self.impl = impl
        self.scale = float(dim // num_heads) ** -0.5
        self.qkv: nn.Conv2d = PointwiseConvolution(dim, 3 * dim)
        self.position: Any = _position(position, dim // num_heads, position_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with standard deviation C ** -0.5: projections that keep the variance."""
        nn.init.normal_(self.qkv.weight, std=self.dim**-0.5)
        if self.position is not None:
            self.position.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Attend over ``x``, [B, C, H, W]."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x)
        out = self._attend(x)
        # torch cannot tell the memory format of what vmap maps over.
        if not needs_plain_operations() and x.is_contiguous(memory_format=torch.channels_last):
            return out.transpose(1, 2).reshape(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        return out.transpose(2, 3).reshape(x.shape)

    def _attend(self, x: Tensor) -> Tensor:
        """Return the attended values, [B, heads, N, d], of ``x``, [B, C, H, W]."""
        return decomposed_attention(**self.operands(x)._asdict(), impl=self.impl)

    def operands(self, x: Tensor) -> Operands:
        """Return the arguments of ``decomposed_attention`` for ``x``, [B, C, H, W]."""
        size = (x.shape[2], x.shape[3])
        q, k, v = self._project(x)
        bias_h, bias_w = (
            (None, None) if self.position is None else self.position(q, size, self.scale)
        )
        return Operands(q, k, v, bias_h, bias_w, size, self.scale, self.content)

    def projections(self) -> Sequence[nn.Module]:
        """Return the module that makes queries, keys and values."""
        return (self.qkv,)

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        """Return queries, keys and values, [B, heads, N, d]."""
        # Called instead of multiplying by its weight, so that hooks and replacements take part.
        qkv = self.qkv(x).permute(0, 2, 3, 1).flatten(1, 2)
        return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def extra_repr(self) -> str:
        """Return the part of ``repr`` in the parentheses."""
        return f"num_heads={self.num_heads}, content={self.content}, impl={self.impl!r}"


def _position(kind: str, dim: int, size: tuple[int, int] | None) -> nn.Module | None:
    if kind == "none":
        return None
    classes = {"relative": RelativePosition2d, "absolute": AbsolutePosition2d}
    if kind not in classes:
        raise ValueError(f"position: expected relative, absolute or none, got {kind!r}")
    if size is None or min(size) < 1:
        raise ValueError(f"position_size: expected (H, W) of at least 1, got {size}")
    return classes[kind](dim, size)
