"""Backbones: a feature pyramid over any timm network, or its deepest map alone."""

import copy
from collections import OrderedDict
from typing import Any

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from botvision.errors import BotvisionError
from botvision.models import create_model, list_models
from botvision.models.foreign import (
    convert_attention,
    count_fixed_attention,
    has_halo_attention,
)
from botvision.weights.backbone import load_backbone_weights
from botvision.weights.licenses import license_restriction
from botvision.weights.named import NamedNetwork, named_network

LEVELS = ("p2", "p3", "p4", "p5")
"""Levels that regions are pooled from; the region proposals also use p6."""
_STRIDE = 32  # of the deepest map; detectors pad images to a multiple of it
_LARGEST = 1024  # image size that is tried, to name those that a network takes
_LOADING = ("pretrained", "checkpoint_path")  # arguments that have timm load weights


class DeepestMap(nn.Module):
    """The last map of a timm network: c5, at stride 32, or 16 in the S1 form.

    Attention of one map size that ``convert_attention`` knows, as that of ``botnet26t_256``, is
    converted, so that images of any size are taken.

    Args:
        name: Name of a timm model that gives feature maps, including botvision's; with a tag or
            without, as timm's address "timm/resnet50.a1_in1k", or as "hf-hub:owner/name".
        image_size: Image side that position tables are made for.
        arguments: Further arguments of the model; ``pretrained`` fetches its trained weights.

    Attributes:
        body: The network, without its classifier.
        out_channels: Channels of the map.
        has_one_size: Whether it takes squares of ``image_size`` alone.
        mean: RGB mean that the network expects, for images in 0..1.
        std: RGB standard deviation that the network expects.
        notes: What a user should know of how it was built: conversions, and a license of trained
            weights that allows no commercial use.

    Raises:
        ValueError: If the model is unknown, or takes no images of this size or no RGB.
    """

    _levels: tuple[int, ...] = (-1,)

    def __init__(
        self, name: str, *, image_size: int, arguments: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        network = named_network(name)
        if network.botify is not None:
            raise BotvisionError(
                f"{name}: expected a network that timm builds, got one that botify made; give the "
                "name of its ResNet, and this address as backbone weights"
            )
        arguments = {**network.arguments, **(arguments or {})}
        channels = arguments.get("in_chans", 3)
        if channels != 3:
            raise ValueError(f"backbone_arguments.in_chans: expected 3 (RGB), got {channels!r}")
        body, converted = _build(network, self._levels, image_size, arguments)
        config: dict[str, Any] = {**body.pretrained_cfg, **network.normalization}
        fixed = bool(config["fixed_input_size"]) or has_halo_attention(body)
        if fixed:
            _check_size(body, image_size)
        self.body = body
        self.has_one_size: bool = fixed
        self.out_channels: int = body.feature_info.channels()[-1]
        self.mean: tuple[float, ...] = tuple(config["mean"])
        self.std: tuple[float, ...] = tuple(config["std"])
        notes = []
        if converted:
            notes.append(
                f"backbone {name}: {converted} attention layers of one map size converted"
                + ("" if fixed else ", so that images of any size are taken")
            )
        if arguments.get("pretrained") and (
            restriction := license_restriction(network.weights or network.name)
        ):
            notes.append(f"backbone {name}: {restriction}")
        self.notes = tuple(notes)

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


def _build(
    network: NamedNetwork, levels: tuple[int, ...], image_size: int, arguments: dict[str, Any]
) -> tuple[Any, int]:
    """Return a network's features, and in how many layers their attention was converted."""
    config = timm.get_pretrained_cfg(network.name)
    fixed = config is not None and bool(config.fixed_input_size)
    options: dict[str, Any] = {"features_only": True, "out_indices": levels}
    sized = dict(options)
    if network.architecture in list_models():  # for this size position tables are made
        sized["img_size"] = image_size
    elif fixed:  # for this size the network is built: whole pixels of its deepest map
        sized["img_size"] = -(-image_size // _STRIDE) * _STRIDE
    if not fixed and network.weights is None:
        return create_model(network.name, **{**sized, **arguments}), 0
    loads = any(arguments.get(name) for name in _LOADING)
    untrained = {key: value for key, value in arguments.items() if key not in _LOADING}
    body: Any = create_model(network.name, **{**sized, **untrained})
    converted = count_fixed_attention(body)
    if converted:
        convert_attention(body)
    elif fixed and image_size % _STRIDE:
        sized["img_size"] = image_size
        body = create_model(network.name, **{**sized, **untrained})
    if loads and network.weights is not None:
        load_backbone_weights(body, network.weights, head=False)
    elif loads and converted:  # trained position tables are of another size until they are loaded
        trained = convert_attention(create_model(network.name, **{**options, **arguments}))
        body.load_state_dict(trained.state_dict())
    elif loads:
        body = create_model(network.name, **{**sized, **arguments})
    return body, converted


def _check_size(body: nn.Module, side: int) -> None:
    """Check that a network of fixed sizes takes the square that a detector pads to."""
    reason = _refusal(body, side)
    if reason is None:
        return
    shapes = copy.deepcopy(body).to("meta")
    taken = [each for each in range(_STRIDE, _LARGEST + 1, _STRIDE) if not _refuses(shapes, each)]
    raise ValueError(
        f"takes no images of {side} x {side} pixels{f' ({reason})' if reason else ''}; choose an "
        f"image size of {', '.join(map(str, taken)) or 'its own'}, or another backbone"
    )


def _refuses(body: nn.Module, side: int) -> bool:
    return _refusal(body, side) is not None


def _refusal(body: nn.Module, side: int) -> str | None:
    """Return why a network takes no squares of a side; None if it does."""
    training = body.training
    device = next(body.parameters()).device
    try:
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, side, side, device=device))
    except (AssertionError, RuntimeError) as error:
        return " ".join(str(error).split())
    finally:
        body.train(training)
    return None
