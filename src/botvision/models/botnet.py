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
        img_size: int | tuple[int, int] = 224,
        position: PositionKind = "relative",
        content: bool = True,
        num_heads: int = 4,
        se_everywhere: bool = False,
        attention_impl: str = "auto",
        **kwargs: Any,
    ) -> None:
        transformer = BottleneckTransformer.configured(
            to_2tuple(img_size),
            channel_attention=se_everywhere,
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
        "botnet_t3": _S1,
        "botnet_t4": _S1,
        "botnet_t5": _cfg(input_size=(3, 256, 256), pool_size=(16, 16)),
        "botnet_t6": _cfg(input_size=(3, 320, 320), pool_size=(20, 20)),
        "botnet_t7": _cfg(input_size=(3, 384, 384), pool_size=(24, 24)),
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


def _create_t(
    variant: str, pretrained: bool, arguments: dict[str, Any], layers: tuple[int, ...], side: int
) -> BoTNet:
    """A network of the T series: S1, squeeze-and-excitation, SiLU (section 4.8)."""
    return _create(
        variant,
        pretrained,
        arguments,
        layers=layers,
        img_size=side,
        output_stride=16,
        act_layer="silu",
        block_args={"attn_layer": "se"},
    )


@register_model
def botnet_t3(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-T3 = S1-59 (section 4.8; paper: 33.5M parameters, 7.3G multiply-adds at 224x224)."""
    return _create_t("botnet_t3", pretrained, kwargs, layers=(3, 4, 6, 6), side=224)


@register_model
def botnet_t4(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-T4 = S1-110 (section 4.8; paper: 54.7M parameters, 10.9G multiply-adds at 224x224)."""
    return _create_t("botnet_t4", pretrained, kwargs, layers=(3, 4, 23, 6), side=224)


@register_model
def botnet_t5(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-T5 = S1-128 (section 4.8; paper: 75.1M parameters, 19.3G multiply-adds at 256x256)."""
    return _create_t("botnet_t5", pretrained, kwargs, layers=(3, 4, 23, 12), side=256)


@register_model
def botnet_t6(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-T6 = S1-77 (section 4.8; paper: 53.9M parameters, 23.3G multiply-adds at 320x320)."""
    return _create_t("botnet_t6", pretrained, kwargs, layers=(3, 4, 6, 12), side=320)


@register_model
def botnet_t7(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """BoTNet-T7 = S1-128 (section 4.8; paper: 75.1M parameters, 45.8G multiply-adds at 384x384)."""
    return _create_t("botnet_t7", pretrained, kwargs, layers=(3, 4, 23, 12), side=384)


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
