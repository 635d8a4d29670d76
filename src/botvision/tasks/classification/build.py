"""Classifiers from the settings of a recipe or of a weights file."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models.resnet import ResNet
from torch import nn

from botvision.errors import BotvisionError
from botvision.models import create_model, list_models
from botvision.models.botify import botify
from botvision.processes import out_of_memory
from botvision.tasks.classification.settings import ClassifierSettings
from botvision.weights.backbone import BackboneReport, load_backbone_weights
from botvision.weights.file import read_description
from botvision.weights.named import named_network

_STEM_STRIDE = 4  # of a ResNet's first convolution and pooling


def registered(settings: ClassifierSettings) -> ClassifierSettings:
    """Return settings that build the same classifier without reading from the Hub."""
    network = named_network(settings.classifier)
    changes = {
        "classifier": network.name,
        "classifier_arguments": {**network.arguments, **settings.classifier_arguments},
        "botify": network.botify if settings.botify is None else settings.botify,
    }
    return settings.model_copy(update=changes)


def build_classifier(settings: ClassifierSettings, num_classes: int) -> nn.Module:
    """Build a classifier with random weights.

    Args:
        settings: The classifier and its arguments.
        num_classes: Number of classes.

    Raises:
        BotvisionError: If the model is unknown or does not take its arguments or its stem.
    """
    name, small = settings.classifier, settings.stem == "cifar"
    arguments: dict[str, Any] = {"num_classes": num_classes, "drop_rate": settings.dropout}
    if settings.drop_path:
        arguments["drop_path_rate"] = settings.drop_path
    try:
        network = named_network(name)
        config = timm.get_pretrained_cfg(network.name)
        if network.architecture in list_models():
            # Position tables are made for the maps of this image behind a stem of stride 4.
            arguments["img_size"] = settings.image_size * (_STEM_STRIDE if small else 1)
        elif config is not None and config.fixed_input_size:
            arguments["img_size"] = settings.image_size
        channels = settings.classifier_arguments.get("in_chans", 3)
        if channels != 3:
            raise BotvisionError(
                "model.classifier_arguments.in_chans: expected 3, as images are read as RGB, got "
                f"{channels!r}"
            )
        own = {**network.arguments, **settings.classifier_arguments}
        own.pop("img_size", None)
        from_hub = network.weights is not None and own.pop("pretrained", False)
        model: Any = create_model(network.name, **arguments, **own)
        model.pretrained_cfg = {**model.pretrained_cfg, **network.normalization}
        conversion = network.botify if settings.botify is None else settings.botify
        if conversion is not None:
            botify(model, **conversion)
        if from_hub and network.weights is not None:
            load_backbone_weights(model, network.weights, head=False)
    except BotvisionError:
        raise
    except (ValueError, TypeError, RuntimeError, IndexError, AssertionError) as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise BotvisionError(f"model.classifier {name}: {reason}") from error
    if small:
        if not isinstance(model, ResNet):
            raise BotvisionError(
                f"model.stem: 'cifar' is for ResNets and BoTNets, got {name}, a "
                f"{type(model).__name__}; use 'imagenet'"
            )
        _keep_resolution(model)
    return model


def load_classifier_backbone(
    model: nn.Module, source: str | Path, classes: Sequence[str]
) -> BackboneReport:
    """Start a classifier from trained weights.

    The head is taken from a classifier of ours with the same classes, as when the image size alone
    changes; it stays new otherwise. Attention stays new where the source is a ResNet.

    Args:
        model: The classifier.
        source: See ``botvision.weights.backbone.load_backbone_weights``.
        classes: Names of its classes, in the order of its outputs.

    Returns:
        Which tensors were taken and which are new.

    Raises:
        BotvisionError: If the source cannot be read or is another network.
    """
    head = False
    with contextlib.suppress(BotvisionError):  # not ours; what is wrong with it, reading it tells
        head = read_description(Path(source)).class_names == tuple(classes)
    try:
        return load_backbone_weights(model, source, head=head)
    except ValueError as error:
        raise BotvisionError(f"model.backbone_weights: {error}") from error


def _keep_resolution(model: Any) -> None:
    """Put CIFAR's stem into a ResNet (He et al. 2016, section 4.2)."""
    width = model.bn1.num_features
    model.conv1 = nn.Conv2d(model.in_chans, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    for level in model.feature_info:
        level["reduction"] = max(1, level["reduction"] // _STEM_STRIDE)
