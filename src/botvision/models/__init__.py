"""The paper's networks as timm models; importing this package registers them."""

import fnmatch
from typing import Any

import timm
from timm.models import register_notrace_module
from torch import nn

from botvision.attention import MultiHeadSelfAttention2d
from botvision.models.botnet import BoTNet
from botvision.models.bottleneck_transformer import BottleneckTransformer, spatial_attention
from botvision.models.names import registered_name
from botvision.models.non_local import NonLocal2d
from botvision.models.variants import default_cfgs

__all__ = [
    "BoTNet",
    "BottleneckTransformer",
    "NonLocal2d",
    "create_model",
    "list_models",
    "spatial_attention",
]

# torch.fx cannot trace branches on shapes: timm's feature_cls="fx" must keep these layers whole.
register_notrace_module(MultiHeadSelfAttention2d)
register_notrace_module(NonLocal2d)


def list_models(filter: str = "*") -> list[str]:  # noqa: A002 - timm's name
    """Return the names of the models that this package adds to timm, sorted.

    Args:
        filter: Pattern that the names match, with the wildcards ``*`` and ``?``.
    """
    return fnmatch.filter(sorted(default_cfgs), filter)


def create_model(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Create a botvision model, or any of timm's, by name.

    Args:
        name: Name of the model, from ``list_models()`` or ``timm.list_models()``, with or without
            a tag, as "resnet50.a1_in1k"; or timm's address of it, "timm/resnet50.a1_in1k".
        pretrained: Whether to load the weights of timm's registry, which needs the network.
        kwargs: Arguments of the model: ``num_classes``, ``in_chans``, ``features_only``,
            ``output_stride``, ``drop_path_rate``, and those of ``BoTNet``. All botvision models
            accept ``img_size``; those without position tables ignore it.

    Returns:
        The model.

    Raises:
        ValueError: If there is no such model or tag; the message names the nearest ones.
    """
    model: nn.Module = timm.create_model(registered_name(name), pretrained=pretrained, **kwargs)
    return model
