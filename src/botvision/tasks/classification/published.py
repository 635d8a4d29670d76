"""config.json of a classifier on the Hugging Face Hub, as timm writes it."""

from pathlib import Path
from typing import Any

import timm
import torch

from botvision.errors import BotvisionError
from botvision.models import create_model, list_models
from botvision.tasks.classification.settings import ClassifierSettings
from botvision.weights.file import Description
from botvision.weights.hub_config import network_config


def timm_config(
    settings: ClassifierSettings, description: Description, path: Path
) -> dict[str, Any]:
    """Return the config.json of a classifier.

    It is timm's, which builds the network; for a stem of ours, which timm cannot build, it points
    at the description in the weights file.

    Args:
        settings: The classifier.
        description: Description of its weights.
        path: The weights file, for the error.

    Raises:
        BotvisionError: If the network cannot be built from the settings.
    """
    given, names = description.input, list(description.class_names)
    prepared = {
        "input_size": (3, given.size, given.size),
        "interpolation": given.interpolation,
        "crop_pct": given.crop,
        "mean": given.mean,
        "std": given.std,
    }
    task = {"task": "image-classification"}
    if settings.stem != "imagenet":
        return {
            "library_name": "botvision",
            **task,
            "model": description.model,
            "num_classes": len(names),
            "label_names": names,
            **prepared,
        }
    arguments = dict(settings.classifier_arguments)
    try:
        fixed = timm.get_pretrained_cfg(settings.classifier).fixed_input_size
        if fixed or settings.classifier in list_models():
            arguments["img_size"] = given.size
        with torch.device("meta"):
            network = create_model(settings.classifier, num_classes=len(names), **arguments)
        config = network_config(network, labels=names, arguments=arguments, preprocessing=prepared)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise BotvisionError(
            f"{path}: the network cannot be built from its description ({error!r})"
        ) from error
    return {**task, **config}
