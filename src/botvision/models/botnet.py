"""BoTNet: timm's ResNet with attention in c5 (paper section 3, tables 1 and 5)."""

import copy
from typing import Any

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from botvision.attention import MultiHeadSelfAttention2d
from botvision.attention.layer import PositionKind
from botvision.models.bottleneck_transformer import (
    BottleneckTransformer,
    image_sides,
    position_table_names,
)
from botvision.models.non_local import NonLocal2d


class AttendingResNet(ResNet):
    """A ResNet with layers that initialize themselves."""

    @torch.jit.ignore  # as timm's networks have it
    def no_weight_decay(self) -> set[str]:
        """Return the names of the position tables, which timm's optimizers then do not decay."""
        return position_table_names(self)

    def init_weights(self, zero_init_last: bool = True) -> None:
        """Initialize the convolutions as timm does, and attention as the layers do."""
        super().init_weights(zero_init_last=zero_init_last)
        for module in self.modules():
            if isinstance(module, MultiHeadSelfAttention2d | NonLocal2d):
                module.reset_parameters()


class BoTNet(AttendingResNet):
    """A ResNet whose last stage attends globally instead of convolving.

    Accepts images of any height and width, and all arguments of timm's ``ResNet``; with
    ``output_stride=16`` c5 keeps the resolution of c4 (the S1 form, section 4.8).

    Args:
        layers: Number of blocks of c2 to c5.
        block: Class of the convolutional blocks. With ``BasicBlock``, as in ResNet-18 and 34, c5
            still has bottlenecks (paper: basic blocks for the convolutions, BoT bottleneck blocks
            for the attention). They are as wide as in every BoTNet, so the network ends in 2048
            channels instead of the ResNet's 512: a bottleneck that ended in 512 would have heads
            of 32 channels.
        img_size: Image side, or (height, width), for which the position tables are made; for
            other sizes they are interpolated.
        position: "relative", "absolute" or "none" (table 4).
        content: Whether the logits contain the content term q . k (table 4).
        num_heads: Attention heads; 4 in the paper.
        se_everywhere: Whether the attention blocks have the squeeze-and-excitation of
            ``block_args`` as well. The paper's parameter counts of T3 to T7 include it; its text
            has it in the convolutional blocks only (section 4.8).
        shortcut_activation: Whether c5's first shortcut ends in the network's activation, as in
            the trained BoTNet-50 of distribuuuu (``botvision.weights.distribuuuu``); not the
            paper's.
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
        shortcut_activation: bool = False,
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
        first: Any = self.get_submodule("layer4.0")
        if shortcut_activation and first.downsample is not None:
            first.downsample.append(copy.deepcopy(first.act3))
