"""Detectors from the settings of a recipe or of a weights file."""

from pathlib import Path
from typing import Any

from torch import nn

from botvision.errors import BotvisionError
from botvision.processes import out_of_memory
from botvision.tasks.detection.detectors.batch_norm import tune_batch_norm
from botvision.tasks.detection.detectors.detr import detr
from botvision.tasks.detection.detectors.rcnn import faster_rcnn, mask_rcnn
from botvision.tasks.detection.settings import DetectorSettings
from botvision.weights import backbone
from botvision.weights.backbone import BackboneReport
from botvision.weights.named import named_network

_BUILDERS = {"mask_rcnn": mask_rcnn, "faster_rcnn": faster_rcnn, "detr": detr}
_NO_ARGUMENTS = {"detector", "backbone_weights"}
_MASK_ONLY = {"mask_head_channels", "mask_head_layers"}


def build_detector(settings: DetectorSettings, num_classes: int) -> nn.Module:
    """Build a detector with random weights.

    Args:
        settings: The detector and its arguments.
        num_classes: Number of classes including the background.

    Raises:
        BotvisionError: If the backbone is unknown or does not take its arguments.
    """
    left_out = {name for name in type(settings).model_fields if name.startswith("batch_norm")}
    left_out |= _NO_ARGUMENTS if settings.masks else _NO_ARGUMENTS | _MASK_ONLY
    arguments = settings.model_dump(exclude=left_out)
    build: Any = _BUILDERS[settings.detector]
    try:
        detector: nn.Module = build(num_classes=num_classes, **arguments)
    except BotvisionError:  # names its own cause, such as a missing package
        raise
    except (ValueError, TypeError, RuntimeError, IndexError, AssertionError) as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise BotvisionError(f"model.backbone {settings.backbone}: {reason}") from error
    tune_batch_norm(detector, settings.batch_norm_momentum, settings.batch_norm_eps)
    return detector


def registered(settings: DetectorSettings) -> DetectorSettings:
    """Return settings that build the same detector without reading from the Hub."""
    network = named_network(settings.backbone)
    arguments = {**network.arguments, **settings.backbone_arguments}
    return settings.model_copy(update={"backbone": network.name, "backbone_arguments": arguments})


def load_backbone_weights(detector: nn.Module, source: str | Path) -> BackboneReport:
    """Start a detector's backbone from a trained detector, a BoTNet or a ResNet.

    The feature pyramid and the heads stay as they are, and so does the attention where the source
    is a ResNet, as in the paper (section 4).

    Args:
        detector: The detector.
        source: See ``botvision.weights.backbone.load_backbone_weights``.

    Returns:
        Which tensors were taken and which are new.

    Raises:
        BotvisionError: If the source cannot be read or its backbone is another one.
    """
    body = detector.get_submodule("backbone.body")
    try:
        return backbone.load_backbone_weights(body, source, head=False)
    except ValueError as error:
        raise BotvisionError(f"model.backbone_weights: {error}") from error
