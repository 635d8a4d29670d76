"""A trained detector as a function of images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from botvision.datasets.coco.annotations import Category
from botvision.errors import BotvisionError
from botvision.predict.images import ImageInput, as_image
from botvision.processes import processes
from botvision.tasks.detection.build import build_detector
from botvision.tasks.detection.evaluation import detect
from botvision.tasks.detection.settings import read_detector_settings
from botvision.training.settings import TrainingSettings
from botvision.weights.file import load_tensors, read_tensors

if TYPE_CHECKING:
    import supervision


class Predictor:
    """Finds instances in images of any size.

    Args:
        model: A torchvision detector.
        categories: Its classes in label order.
        description: Where the weights come from, see ``read_description``.

    Attributes:
        model: The detector, in evaluation mode on the best device there is.
        categories: Classes in label order, with their original ids.
        description: As given.
        precision: That of the training, "float32" or "bfloat16".
    """

    def __init__(
        self, model: nn.Module, categories: list[Category], description: dict[str, Any]
    ) -> None:
        self.model: Any = model.eval().to(processes().device)
        self.categories = categories
        self.description = description
        self.precision: str = description["recipe"]["training"]["precision"]

    def __call__(self, image: ImageInput, *, score: float = 0.5) -> "supervision.Detections":
        """Detections in one image.

        Args:
            image: Path, PIL image, or RGB array uint8 [H, W, 3].
            score: Smallest score to keep.

        Returns:
            ``xyxy`` in pixels, ``confidence``, ``class_id`` (the category's original id),
            ``mask``, a ``CompactMask`` [n, H, W], if the model predicts masks, and
            ``data["class_name"]``.

        Raises:
            BotvisionError: If the image cannot be read.
        """
        detections = self.detect(_tensor(image), score=score)
        indices = detections.class_id
        detections.data["class_name"] = np.array([c.name for c in self.categories])[indices]
        detections.class_id = np.array([category.id for category in self.categories])[indices]
        return detections

    def detect(self, image: Tensor, *, score: float) -> "supervision.Detections":
        """Detections of an image [3, H, W], see ``detect``.

        Args:
            image: uint8, or float in 0..1.
            score: Smallest score to keep.
        """
        scaled = F.to_dtype(image, torch.float32, scale=True)
        (detections,) = detect(self.model, [scaled], self.precision, threshold=score)
        return detections


def detector_predictor(path: Path, description: dict[str, Any]) -> Predictor:
    """A detector from a weights file.

    Args:
        path: The file.
        description: What it says of itself.

    Raises:
        BotvisionError: If it describes no detector of ours, or holds another one.
    """
    try:
        settings = read_detector_settings(description["model"])
        categories = [Category(**category) for category in description["categories"]]
        training = TrainingSettings.model_validate(description["recipe"]["training"])
    except (KeyError, TypeError, ValidationError) as error:
        raise BotvisionError(
            f"{path}: expected a detector's weights, got a description of something else or of "
            f"another version ({' '.join(str(error).split())})"
        ) from error
    # The file holds all weights; none are to be fetched.
    arguments = {k: v for k, v in settings.backbone_arguments.items() if k != "pretrained"}
    settings = settings.model_copy(update={"backbone_arguments": arguments})
    model = build_detector(settings, len(categories) + 1)
    load_tensors(model, read_tensors(path), path)
    if training.channels_last:  # as it was evaluated in training, so that the figures agree
        model = model.to(memory_format=torch.channels_last)
    return Predictor(model, categories, description)


def _tensor(photo: ImageInput) -> Tensor:
    image: Tensor = F.pil_to_tensor(as_image(photo))
    return image
