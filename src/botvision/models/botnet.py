"""BoTNet: timm's ResNet with attention in c5 (paper section 3, tables 1 and 5)."""

from typing import Any

from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from botvision.attention import MultiHeadSelfAttention2d
from botvision.attention.layer import PositionKind
from botvision.models.bottleneck_transformer import BottleneckTransformer, image_sides


class BoTNet(ResNet):
    """A ResNet whose last stage attends globally instead of convolving.

    Takes images of any height and width. All of timm's ``ResNet`` arguments apply; with
    ``output_stride=16`` c5 keeps the resolution of c4 (the S1 form, section 4.8).

    Args:
        layers: Blocks of c2 to c5.
        block: timm's class of the convolutional blocks. With ``BasicBlock``, as in ResNet-18 and
            34, c5 still holds bottlenecks (paper: basic blocks for the convolutions, BoT
            bottleneck blocks for the attention). Their width is that of every BoTNet's c5, so
            that the network ends in 2048 channels and not in the ResNet's 512: a bottleneck that
            ended in 512 would attend with 32 channels a head.
        img_size: Image size, or (height, width), for which the position tables are made; at
            other sizes they are interpolated.
        position: "relative", "absolute" or "none" (table 4).
        content: False leaves the content logits out (table 4).
        num_heads: Attention heads; 4 in the paper.
        se_everywhere: True puts the squeeze-and-excitation of ``block_args`` into the attention
            blocks as well, which is what the paper's parameter counts of T3 to T7 hold; its text
            has it in the convolutional blocks alone (section 4.8).
        attention_impl: Implementation of ``decomposed_attention``.
        kwargs: Arguments of timm's ``ResNet``.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        *,
        block: type[BasicBlock | Bottleneck] = Bottleneck,
        img_size: int | tuple[int, int] = 224,
        position: PositionKind = "relative",
        content: bool = True,
        num_heads: int = 4,
        se_everywhere: bool = False,
        attention_impl: str = "auto",
        **kwargs: Any,
    ) -> None:
        transformer = BottleneckTransformer.configured(
            image_sides(img_size),
            channel_attention=se_everywhere,
            num_heads=num_heads,
            position=position,
            content=content,
            impl=attention_impl,
        )
        super().__init__(block=(block, block, block, transformer), layers=layers, **kwargs)

    def init_weights(self, zero_init_last: bool = True) -> None:
        """Timm's initialization for the convolutions, the layer's own for the attention."""
        super().init_weights(zero_init_last=zero_init_last)
        for module in self.modules():
            if isinstance(module, MultiHeadSelfAttention2d):
                module.reset_parameters()
