"""A ready predictor from whatever weights botvision wrote."""

from pathlib import Path
from typing import Any

from botvision.errors import BotvisionError
from botvision.predict.class_predictor import ClassPredictor, class_predictor, network_predictor
from botvision.predict.predictor import Predictor, detector_predictor
from botvision.weights.file import read_description
from botvision.weights.hub import CONFIG, HUB, from_pretrained, pretrained_file
from botvision.weights.hub_config import read_config


def load(weights: str | Path) -> Predictor | ClassPredictor:
    """A ready predictor from a weights file, of a detector or a classifier.

    Args:
        weights: ``best.safetensors`` or ``last.safetensors`` of a run; a folder that
            ``save_pretrained`` wrote; or "hf-hub:owner/name", which is fetched.

    Raises:
        BotvisionError: If the file is missing or describes neither.
    """
    return load_sized(weights, None)


def load_sized(weights: str | Path, image_size: int | None) -> Predictor | ClassPredictor:
    """See ``load``; a classifier for images of another side than it was trained on.

    Args:
        weights: As there.
        image_size: Side in pixels, of a classifier alone; None: as in the training.

    Raises:
        BotvisionError: As ``load`` does.
    """
    path = Path(weights)
    if path.is_dir() or str(weights).startswith(HUB):
        path = pretrained_file(weights)
        if not _is_of_a_run(path):
            config = read_config(path.with_name(CONFIG))
            return network_predictor(from_pretrained(path.parent), config, image_size=image_size)
    description = read_description(path)
    if is_classifier(description):
        return class_predictor(path, description, image_size=image_size)
    return detector_predictor(path, description)


def load_detector(weights: str | Path) -> Predictor:
    """See ``load``, where only a detector will do.

    Raises:
        BotvisionError: If the weights are a classifier's, or as ``load`` does.
    """
    predictor = load(weights)
    if isinstance(predictor, ClassPredictor):
        raise BotvisionError(f"{weights}: expected a detector's weights, got a classifier's")
    return predictor


def is_classifier(description: dict[str, Any]) -> bool:
    """Whether a weights file's description is that of a run of ours that trained a classifier."""
    model = description.get("model")
    return isinstance(model, dict) and "classifier" in model


def _is_of_a_run(path: Path) -> bool:
    """Whether a weights file says how to build its model; a network's config.json does it else."""
    try:
        return "model" in read_description(path)
    except BotvisionError:  # timm's, without a description
        return False
