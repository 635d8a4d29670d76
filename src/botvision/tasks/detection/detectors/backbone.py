"""Backbones: a feature pyramid over any timm network, or its deepest map alone."""

from collections import OrderedDict
from typing import Any

import timm
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
        mean: RGB mean that the network expects, for images in 0..1.
        std: RGB standard deviation that the network expects.

    Raises:
        ValueError: If the model is unknown.
    """

    _levels: tuple[int, ...] = (-1,)

    def __init__(
        self, name: str, *, image_size: int, arguments: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"img_size": image_size} if name in list_models() else {}
        options |= {"features_only": True, "out_indices": self._levels, **(arguments or {})}
        body: Any = create_model(name, **options)
        self.body = body
        self.out_channels: int = body.feature_info.channels()[-1]
        config = timm.get_pretrained_cfg(name)
        self.mean: tuple[float, ...] = config.mean
        self.std: tuple[float, ...] = config.std

    def forward(self, images: Tensor) -> Any:
        """Return the map [B, out_channels, H / stride, W / stride] of images [B, 3, H, W]."""
        return self.body(images)[-1]


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
        features = OrderedDict(zip(LEVELS, self.body(images), strict=True))
        levels: OrderedDict[str, Tensor] = self.fpn(features)
        levels["p6"] = levels.pop("pool")
        return levels
