"""BoTNet: timm's ResNet with attention in c5 (paper section 3, tables 1 and 5)."""

from typing import Any

from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet

from botvision.attention import MultiHeadSelfAttention2d
from botvision.attention.layer import PositionKind
from botvision.models.bottleneck_transformer import BottleneckTransformer


class BoTNet(ResNet):
    """A ResNet whose last stage attends globally instead of convolving.

    Takes images of any height and width. All of timm's ``ResNet`` arguments apply; with
    ``output_stride=16`` c5 keeps the resolution of c4 (the S1 form, section 4.8).

    Args:
        layers: Blocks of c2 to c5.
        img_size: Image size, or (height, width), for which the position tables are made; at
            other sizes they are interpolated.
        position: "relative", "absolute" or "none" (table 4).
        content: False leaves the content logits out (table 4).
        num_heads: Attention heads; 4 in the paper.
        attention_impl: Implementation of ``decomposed_attention``.
        kwargs: Arguments of timm's ``ResNet``.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        *,
        img_size: int | tuple[int, int] = 224,
        position: PositionKind = "relative",
        content: bool = True,
        num_heads: int = 4,
        attention_impl: str = "auto",
        **kwargs: Any,
    ) -> None:
        transformer = BottleneckTransformer.configured(
            to_2tuple(img_size),
            num_heads=num_heads,
            position=position,
            content=content,
            impl=attention_impl,
        )
        blocks = (Bottleneck, Bottleneck, Bottleneck, transformer)
        super().__init__(block=blocks, layers=layers, **kwargs)

    def init_weights(self, zero_init_last: bool = True) -> None:
        """Timm's initialisation for the convolutions, the layer's own for the attention."""
        super().init_weights(zero_init_last=zero_init_last)
        for module in self.modules():
            if isinstance(module, MultiHeadSelfAttention2d):
                module.reset_parameters()


def _cfg(**overrides: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2101.11605",
        **overrides,
    }


_S1 = _cfg(pool_size=(14, 14))

default_cfgs = generate_default_cfgs(
    {
        "botnet50": _cfg(),
        "botnet101": _cfg(),
        "botnet152": _cfg(),
        "botnet200": _cfg(),
        "botnet50_s1": _S1,
        "botnet101_s1": _S1,
        "botnet152_s1": _S1,
        "botnet200_s1": _S1,
        "botnet_tiny": _cfg(
            input_size=(3, 128, 128), pool_size=(4, 4), first_conv="conv1.0", crop_pct=1.0
        ),
    }
)


def _create(variant: str, pretrained: bool, arguments: dict[str, Any], **defaults: Any) -> BoTNet:
    model: BoTNet = build_model_with_cfg(BoTNet, variant, pretrained, **{**defaults, **arguments})
    return model


@register_model
def botnet50(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-50: 20.8M parameters, 102.98G multiply-adds at 1024x1024 (table 1)."""
    return _create("botnet50", pretrained, kwargs, layers=(3, 4, 6, 3))


@register_model
def botnet101(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-101 (table 5)."""
    return _create("botnet101", pretrained, kwargs, layers=(3, 4, 23, 3))


@register_model
def botnet152(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-152 (tables 5 and 8)."""
    return _create("botnet152", pretrained, kwargs, layers=(3, 8, 36, 3))


@register_model
def botnet200(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-200 (table 8)."""
    return _create("botnet200", pretrained, kwargs, layers=(3, 24, 36, 3))


@register_model
def botnet50_s1(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-S1-50: c5 at stride 16 (section 4.8)."""
    return _create("botnet50_s1", pretrained, kwargs, layers=(3, 4, 6, 3), output_stride=16)


@register_model
def botnet101_s1(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-S1-101: c5 at stride 16 (section 4.8)."""
    return _create("botnet101_s1", pretrained, kwargs, layers=(3, 4, 23, 3), output_stride=16)


@register_model
def botnet152_s1(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-S1-152: c5 at stride 16 (section 4.8)."""
    return _create("botnet152_s1", pretrained, kwargs, layers=(3, 8, 36, 3), output_stride=16)


@register_model
def botnet200_s1(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-S1-200: c5 at stride 16; our completion of the series."""
    return _create("botnet200_s1", pretrained, kwargs, layers=(3, 24, 36, 3), output_stride=16)


@register_model
def botnet_tiny(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """A BoTNet for CPUs and tests, half as wide and half as deep; ours, not the paper's."""
    return _create(
        "botnet_tiny",
        pretrained,
        kwargs,
        layers=(2, 2, 2, 2),
        channels=(32, 64, 128, 256),
        stem_type="deep",
        stem_width=16,
        img_size=128,
    )
