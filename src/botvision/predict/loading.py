"""A ready predictor from any weights that botvision or timm wrote."""

from pathlib import Path
from typing import Any

import torch

from botvision.errors import BotvisionError
from botvision.models.names import HUB
from botvision.processes import one_line_out_of_memory, processes
from botvision.tasks.predictor import Predictor
from botvision.tasks.task import find_task
from botvision.weights.file import has_description, read_description
from botvision.weights.hub import CONFIG, pretrained_file
from botvision.weights.hub_config import network_description, read_config


def load(
    weights: str | Path,
    device: str | torch.device | None = None,
    *,
    image_size: int | None = None,
) -> Predictor[Any]:
    """Load a trained model as a function of images.

    Args:
        weights: A weights file; a folder that ``save_pretrained`` wrote; or
            "hf-hub:owner/name", which is downloaded.
        device: Device that the model runs on; None: a GPU if there is one, else the CPU.
        image_size: Side in pixels of the square that images are fitted into or cropped to; None:
            as in the training.

    Returns:
        A predictor: ``predictor(image)`` returns ``supervision.Detections`` of a detector and
        ``supervision.Classifications`` of a classifier.

    Raises:
        BotvisionError: If the weights are missing or describe no model.
        OutOfMemoryError: If memory does not suffice for the model.
        ValueError: If there is no such device, or ``image_size`` is less than 1.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size: expected 1 or more pixels, got {image_size}")
    target = _device(device)
    remedy = "free some memory, or take a smaller model or another device"
    with one_line_out_of_memory(f"{weights}: loading the weights", remedy):
        return _load(weights, target, image_size)


def _load(weights: str | Path, device: torch.device, image_size: int | None) -> Predictor[Any]:
    path = Path(weights)
    folder = path.is_dir() or str(weights).startswith(HUB)
    if folder:
        path = pretrained_file(weights)
    if folder and not has_description(path):  # timm's own
        config = path.with_name(CONFIG)
        description = network_description(read_config(config), config)
    else:
        description = read_description(path)
    try:
        task = find_task(description.task)
    except BotvisionError as error:
        raise BotvisionError(f"{path}: {error}") from error
    return task.predictor(path, description, device=device, image_size=image_size)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return processes().device
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BotvisionError(
            f"device: expected one that torch can use, got {str(device)!r} ({reason})"
        ) from error
    return chosen
