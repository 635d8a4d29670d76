"""The paper's networks as timm models; importing this package registers them."""

from typing import Any

import timm
from timm.models import register_notrace_module
from torch import nn

from botvision.attention import MultiHeadSelfAttention2d
from botvision.errors import nearest
from botvision.models.botnet import BoTNet
from botvision.models.bottleneck_transformer import BottleneckTransformer, spatial_attention
from botvision.models.non_local import NonLocal2d
from botvision.models.registration import default_cfgs

__all__ = [
    "BoTNet",
    "BottleneckTransformer",
    "NonLocal2d",
    "create_model",
    "list_models",
    "spatial_attention",
]

# torch.fx traces no branches on shapes: timm's `feature_cls="fx"` is to keep these layers whole.
register_notrace_module(MultiHeadSelfAttention2d)
register_notrace_module(NonLocal2d)


def list_models() -> list[str]:
    """Names of the models that this package adds to timm, sorted."""
    return sorted(default_cfgs)


def create_model(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build one of our models, or any of timm's, by name.

    Args:
        name: A name of ``list_models()`` or of ``timm.list_models()``.
        pretrained: Load the weights that timm's registry names for the model (needs network).
        kwargs: Arguments of the model: ``num_classes``, ``in_chans``, ``features_only``,
            ``output_stride``, ``drop_path_rate``, and those of ``BoTNet``. All of our models
            take ``img_size``, those without position tables to no effect.

    Returns:
        The model.

    Raises:
        ValueError: If there is no such model; the message names the nearest ones.
    """
    if not timm.is_model(name):
        raise ValueError(f"model: {name!r} is unknown{nearest(name, timm.list_models())}")
    model: nn.Module = timm.create_model(name, pretrained=pretrained, **kwargs)
    return model
