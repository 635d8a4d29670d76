"""ResNets with an inserted attention block; no convolution is replaced (paper table 7)."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from timm.models.resnet import Bottleneck
from torch import nn

from botvision.attention.decomposed_attention import check_implementation
from botvision.attention.layer import PositionKind
from botvision.models.botnet import AttendingResNet
from botvision.models.bottleneck_transformer import BottleneckTransformer, image_sides
from botvision.models.non_local import NonLocal2d

STAGES = ("c2", "c3", "c4", "c5")
"""Stages of a ResNet, of strides 4 to 32; timm calls them layer1 to layer4."""


class InsertedResNet(AttendingResNet):
    """A ResNet with an additional block before the last block of some stages.

    The inserted block is named after the one before it, "layer3.4_inserted", and the others keep
    their names, so a ResNet's weights fit by name and timm groups the parameters by block.

    Args:
        layers: Number of blocks of c2 to c5, without inserted ones.
        inserted: Factory of the block by stage, "c2" to "c5", called as timm calls block classes.
        kwargs: Arguments of timm's ``ResNet``.

    Raises:
        ValueError: If a stage is unknown or has fewer than two blocks.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        *,
        inserted: Mapping[str, Callable[..., nn.Module]],
        **kwargs: Any,
    ) -> None:
        blocks: list[Any] = [Bottleneck] * len(layers)
        deeper = list(layers)
        for stage, block in inserted.items():
            at = _index(stage)
            if layers[at] < 2:
                raise ValueError(
                    f"layers: expected at least 2 blocks in {stage}, to insert one between them, "
                    f"got {tuple(layers)}"
                )
            blocks[at] = _BeforeLast(block, layers[at])
            deeper[at] += 1
        super().__init__(block=tuple(blocks), layers=tuple(deeper), **kwargs)
        for stage in inserted:
            name = f"layer{_index(stage) + 1}"
            setattr(self, name, _with_names_kept(self.get_submodule(name)))


class NonLocalResNet(InsertedResNet):
    """A ResNet with a Non-Local block before the last block of c4 (paper table 7).

    Args:
        layers: Number of blocks of c2 to c5, without inserted ones.
        stages: Stages in which to insert a block.
        attention_impl: Implementation of ``decomposed_attention``.
        kwargs: Arguments of timm's ``ResNet``.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        *,
        stages: tuple[str, ...] = ("c4",),
        attention_impl: str = "auto",
        **kwargs: Any,
    ) -> None:
        check_implementation(attention_impl)
        block = partial(_non_local_block, impl=attention_impl)
        super().__init__(layers, inserted=dict.fromkeys(stages, block), **kwargs)


class TransformerResNet(InsertedResNet):
    """A ResNet with a BoT block before the last block of c4, or of c4 and c5 (paper table 7).

    Args:
        layers: Number of blocks of c2 to c5, without inserted ones.
        stages: Stages in which to insert a block.
        img_size: Image side, or (height, width), for which the position tables are made; for
            other sizes they are interpolated.
        position: "relative", "absolute" or "none".
        content: Whether the logits contain the content term q . k.
        num_heads: Attention heads.
        attention_impl: Implementation of ``decomposed_attention``.
        kwargs: Arguments of timm's ``ResNet``.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        *,
        stages: tuple[str, ...] = ("c4",),
        img_size: int | tuple[int, int] = 224,
        position: PositionKind = "relative",
        content: bool = True,
        num_heads: int = 4,
        attention_impl: str = "auto",
        **kwargs: Any,
    ) -> None:
        inserted = {
            stage: BottleneckTransformer.configured(
                image_sides(img_size),
                channel_attention=False,
                stage_stride=4 * 2 ** _index(stage),
                num_heads=num_heads,
                position=position,
                content=content,
                impl=attention_impl,
            )
            for stage in stages
        }
        super().__init__(layers, inserted=inserted, **kwargs)


class _BeforeLast:
    """Takes the place of a stage's block class: bottlenecks, except for the last but one."""

    expansion = Bottleneck.expansion

    def __init__(self, block: Callable[..., nn.Module], bottlenecks: int) -> None:
        self._classes = iter([*[Bottleneck] * (bottlenecks - 1), block, Bottleneck])

    def __call__(self, *args: Any, **kwargs: Any) -> nn.Module:
        block: nn.Module = next(self._classes)(*args, **kwargs)
        return block


def _non_local_block(
    channels: int,
    *_: Any,
    impl: str,
    norm_layer: Any,
    device: Any = None,
    dtype: Any = None,
    **__: Any,  # timm's other arguments of a bottleneck
) -> NonLocal2d:
    block = NonLocal2d(channels, norm_layer=norm_layer, impl=impl, device=device, dtype=dtype)
    nn.init.ones_(block.norm.weight)  # as a bottleneck's; timm sets the zeros where it should
    return block


def _with_names_kept(stage: nn.Module) -> nn.Sequential:
    """Return the stage with its inserted block renamed, so that the last keeps its old name."""
    *before, inserted, last = stage.children()
    blocks = {str(index): block for index, block in enumerate(before)}
    blocks[f"{len(before) - 1}_inserted"] = inserted
    blocks[str(len(before))] = last
    return nn.Sequential(OrderedDict(blocks))


def _index(stage: str) -> int:
    if stage not in STAGES:
        raise ValueError(f"stages: expected some of {', '.join(STAGES)}, got {stage!r}")
    return STAGES.index(stage)
