"""The Bottleneck Transformer block: a ResNet bottleneck with attention for its 3x3 convolution."""

from collections import OrderedDict
from functools import partial
from operator import index
from typing import Any

from timm.layers import to_2tuple
from timm.models.resnet import Bottleneck
from torch import nn

from botvision.attention import MultiHeadSelfAttention2d


def spatial_attention(
    dim: int, stride: int, map_size: tuple[int, int], **options: Any
) -> nn.Sequential:
    """Return the replacement of a bottleneck's 3x3 convolution (paper figure 3).

    Attention runs at the input's resolution; a stride of 2 is 2x2 average pooling after it. The
    pooling rounds up, as the strided shortcut does, so odd maps work.

    Args:
        dim: Channels of input and output.
        stride: 1 or 2.
        map_size: (H, W) of the map for which the position tables are made.
        options: ``num_heads``, ``position``, ``content``, ``impl`` of
            ``MultiHeadSelfAttention2d``.

    Returns:
        Modules ``attention`` and ``pool``: [B, dim, H, W] to [B, dim, ceil(H / stride), ...].
    """
    pool = halving_pool() if stride == 2 else nn.Identity()
    attention = MultiHeadSelfAttention2d(dim, position_size=map_size, **options)
    return nn.Sequential(OrderedDict(attention=attention, pool=pool))


def halving_pool() -> nn.AvgPool2d:
    """Return 2x2 average pooling, [B, C, H, W] to [B, C, ceil(H / 2), ceil(W / 2)].

    At the edge of an odd map a window is averaged over the cells inside the map.
    """
    # Without padding ``count_include_pad`` is the same either way, but with True inductor's
    # gradient is wrong at those edges (pytorch/pytorch issue 198119).
    return nn.AvgPool2d(2, stride=2, ceil_mode=True, count_include_pad=False)


def image_sides(img_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that an argument ``img_size`` stands for.

    Raises:
        ValueError: If it is neither a side nor two sides in whole pixels.
    """
    try:
        height, width = (index(side) for side in to_2tuple(img_size))
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(
            f"img_size: expected a side or (height, width) in pixels, 1 or more, got {img_size!r}"
        )
    return height, width


def position_table_names(network: nn.Module) -> set[str]:
    """Return the names of a network's position tables, which weight decay leaves out."""
    return {
        f"{name}.position.{table}"
        for name, module in network.named_modules()
        if isinstance(module, MultiHeadSelfAttention2d) and module.position is not None
        for table in ("height", "width")
    }


class BottleneckTransformer(Bottleneck):
    """timm's ``Bottleneck`` with self-attention for its 3x3 convolution.

    Everything else, including batch normalization and the three non-linearities, is unchanged
    (paper section 3.2). Where a ResNet dilates (``output_stride`` 16), the attention keeps the
    resolution: the S1 form.

    timm's ``ResNet`` passes the same arguments to the blocks of all stages, so the arguments of
    this block alone are bound by ``configured``.
    """

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        *args: Any,
        image_size: tuple[int, int] = (224, 224),
        channel_attention: bool = False,
        stage_stride: int = 32,
        attention_options: dict[str, Any] | None = None,
        attn_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        kwargs["attn_layer"] = attn_layer if channel_attention else None
        super().__init__(inplanes, planes, stride, *args, **kwargs)
        # A first block attends before it pools; a dilated stage is not pooled at all.
        map_stride = stage_stride // (2 if stride == 2 else self.dilation)
        height, width = (-(-side // map_stride) for side in image_size)
        replaced: Any = self.get_submodule("conv2")
        self.conv2 = spatial_attention(
            replaced.out_channels,
            replaced.stride[0],  # 1 where timm's anti-aliasing does the pooling
            (height, width),
            **(attention_options or {}),
        ).to(replaced.weight)  # timm's device and dtype arguments

    @classmethod
    def configured(
        cls,
        image_size: tuple[int, int],
        *,
        channel_attention: bool = False,
        stage_stride: int = 32,
        **attention_options: Any,
    ) -> "partial[BottleneckTransformer]":
        """Return this block with its own arguments bound, to pass to timm's ``ResNet``.

        Args:
            image_size: (H, W) of the image for which the position tables are made.
            channel_attention: Whether the block has the network's ``attn_layer`` (SE).
            stage_stride: Stride of the stage without dilation: 32 in c5, 16 in c4.
            attention_options: Options of ``spatial_attention``.
        """
        block = partial(
            cls,
            image_size=image_size,
            channel_attention=channel_attention,
            stage_stride=stage_stride,
            attention_options=attention_options,
        )
        block.expansion = cls.expansion  # type: ignore[attr-defined]  # timm reads it
        return block
