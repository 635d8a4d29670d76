"""Backbones: a feature pyramid over any timm network, or its deepest map alone."""

from collections import OrderedDict
from typing import Any

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from botvision.models import create_model, list_models

LEVELS = ("p2", "p3", "p4", "p5")
"""Levels that regions are pooled from; the region proposals also use p6."""


class DeepestMap(nn.Module):
    """The last map of a timm network: c5, at stride 32, or 16 in the S1 form.

    Args:
        name: Name of a timm model that gives feature maps, including botvision's.
        image_size: Image side that position tables are made for.
        arguments: Further arguments of the model.

    Attributes:
        body: The network, without its classifier.
        out_channels: Channels of the map.
        has_one_size: Whether it takes squares of ``image_size`` alone.
        mean: RGB mean that the network expects, for images in 0..1.
        std: RGB standard deviation that the network expects.

    Raises:
        ValueError: If the model is unknown, or takes no images of this size or no RGB.
    """

    _levels: tuple[int, ...] = (-1,)

    def __init__(
        self, name: str, *, image_size: int, arguments: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        arguments = arguments or {}
        channels = arguments.get("in_chans", 3)
        if channels != 3:
            raise ValueError(f"backbone_arguments.in_chans: expected 3 (RGB), got {channels!r}")
        # Our position tables are made for this size; networks of one size are built for it.
        config = timm.get_pretrained_cfg(name)
        fixed = config is not None and bool(config.fixed_input_size)
        options: dict[str, Any] = {"img_size": image_size} if name in list_models() or fixed else {}
        options |= {"features_only": True, "out_indices": self._levels, **arguments}
        body: Any = create_model(name, **options)
        if fixed:
            _check_size(name, body, image_size)
        self.body = body
        self.has_one_size: bool = fixed
        self.out_channels: int = body.feature_info.channels()[-1]
        self.mean: tuple[float, ...] = config.mean
        self.std: tuple[float, ...] = config.std

    def forward(self, images: Tensor) -> Any:
        """Return the map [B, out_channels, H / stride, W / stride] of images [B, 3, H, W]."""
        return self._maps(images)[-1]

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Return the network's maps [B, channels, H / stride, W / stride]."""
        maps: list[Tensor] = self.body(images)
        last = getattr(self.body, "output_fmt", Format.NCHW) == Format.NHWC  # Swin and others
        return [each.permute(0, 3, 1, 2) for each in maps] if last else maps


class PyramidBackbone(DeepestMap):
    """Feature pyramid p2 to p6 over c2 to c5 of a timm network.

    Args:
        name: Name of a timm model with reductions 4, 8, 16 and 32, including botvision's.
        image_size: Image side that position tables are made for.
        channels: Channels of every level.
        norm_layer: Normalization in the pyramid; None uses biases instead.
        arguments: Further arguments of the model.

    Attributes:
        out_channels: ``channels``, under torchvision's name; the others as of ``DeepestMap``.

    Raises:
        ValueError: If the model is unknown or has other reductions.
    """

    _levels = (-4, -3, -2, -1)

    def __init__(
        self,
        name: str,
        *,
        image_size: int,
        channels: int = 256,
        norm_layer: type[nn.Module] | None = nn.BatchNorm2d,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, image_size=image_size, arguments=arguments)
        reductions = list(self.body.feature_info.reduction())
        if reductions not in ([4, 8, 16, 32], [4, 8, 16, 16]):
            raise ValueError(f"expected maps of strides 4, 8, 16 and 32, got {reductions}")
        self.out_channels = channels
        self.fpn = FeaturePyramidNetwork(
            self.body.feature_info.channels(),
            channels,
            extra_blocks=LastLevelMaxPool(),
            norm_layer=norm_layer,
        )

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return p2 to p6 of images [B, 3, H, W], each [B, channels, H / stride, W / stride]."""
        features = OrderedDict(zip(LEVELS, self._maps(images), strict=True))
        levels: OrderedDict[str, Tensor] = self.fpn(features)
        levels["p6"] = levels.pop("pool")
        return levels


def _check_size(name: str, body: nn.Module, side: int) -> None:
    """Check that a network that is built for one size takes the square that a detector pads to."""
    training = body.training
    try:
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, side, side))
    except (AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"takes no images of {side} x {side} pixels{f' ({reason})' if reason else ''}; choose "
            f"another image size, such as {timm.get_pretrained_cfg(name).input_size[-1]}, or "
            "another backbone"
        ) from error
    body.train(training)
