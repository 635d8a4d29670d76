"""A trained classifier as a function of images."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor, nn

from botvision.errors import BotvisionError
from botvision.images.inputs import ImageInput
from botvision.supervision_import import import_supervision
from botvision.tasks.classification.build import build_classifier
from botvision.tasks.classification.evaluation import class_logits
from botvision.tasks.classification.settings import ClassifierSettings
from botvision.tasks.classification.transforms import evaluation_transform, strip_fault
from botvision.tasks.predictor import Box, Predictor
from botvision.tasks.task import settings_of
from botvision.weights.file import Description, load_tensors, read_tensors

if TYPE_CHECKING:
    import supervision

_MOST_THREADS = 8


class ClassificationPredictor(Predictor["supervision.Classifications"]):
    """Predicts the class of images of any size; see ``Predictor``.

    Results are ``supervision.Classifications``, most probable class first: ``class_id`` int64 [n],
    indices into ``classes``, and ``confidence`` float32 [n], their probabilities. They hold all
    classes unless a threshold is given.
    """

    task = "classification"

    def __init__(
        self, model: nn.Module, description: Description, *, device: torch.device | None = None
    ) -> None:
        super().__init__(model, description, device=device)
        given = description.input
        self._crop = given.crop or 1.0
        self.transform = evaluation_transform(
            given.size,
            self._crop,
            mean=given.mean,
            std=given.std,
            interpolation=given.interpolation,
        )

    def predict(
        self,
        images: Sequence[Image.Image],
        *,
        threshold: float | None = None,
        tta: bool = False,
    ) -> "list[supervision.Classifications]":
        """Predict RGB images as one batch; see ``Predictor.__call__``."""
        ordered = self.probabilities(images, tta=tta).sort(descending=True)
        classifications, results = import_supervision().Classifications, []
        for confidence, index in zip(*(each.numpy() for each in ordered), strict=True):
            kept = confidence >= (self.threshold if threshold is None else threshold)
            results.append(classifications(index[kept], confidence[kept]))
        return results

    def probabilities(
        self, images: Sequence[ImageInput], *, tta: bool = False, batch_size: int = 32
    ) -> Tensor:
        """Return the probabilities of all classes: float32 [n, classes].

        Args:
            images: Images, see ``botvision.images.inputs.to_rgb``.
            tta: Whether to average over each image and its horizontal flip.
            batch_size: Images per batch; several threads read and prepare them.

        Raises:
            BotvisionError: If an image cannot be read.
        """
        parts = [torch.empty(0, len(self.classes))]
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
            for start in range(0, len(images), batch_size):
                chosen = images[start : start + batch_size]
                prepared = pool.map(lambda image: self.transform(self.decoded(image)), chosen)
                batch = torch.stack([*prepared]).to(self.device)
                precision = self.description.input.precision
                logits = class_logits(self.model, batch, precision, tta=tta)
                parts.append(logits.softmax(dim=1).cpu())
        return torch.cat(parts)

    def size_fault(self, size: tuple[int, int]) -> str:
        """Return that an image is too long to be resized; "" if it is not."""
        return strip_fault(size, int(self.input_size / self._crop))

    def covered_box(self, image: Image.Image) -> Box:
        """Return the square in the middle of the image that the classifier sees."""
        # timm resizes the shorter side to this many pixels and crops the middle.
        shorter = int(self.input_size / self._crop)
        side = min(image.size) * self.input_size / shorter
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return left, top, left + side, top + side


def classification_predictor(
    path: Path,
    description: Description,
    *,
    device: torch.device | None = None,
    image_size: int | None = None,
) -> ClassificationPredictor:
    """Build the predictor of a weights file; see ``Task.predictor``."""
    settings: ClassifierSettings = settings_of(path, description, "classifier")
    given = description.input
    if image_size is not None:
        given = given.model_copy(update={"size": image_size})
        description = description.model_copy(update={"input": given})
    # The file holds all weights; none are to be fetched.
    arguments = {k: v for k, v in settings.classifier_arguments.items() if k != "pretrained"}
    changes = {"classifier_arguments": arguments, "image_size": given.size}
    try:
        model = build_classifier(settings.model_copy(update=changes), len(description.classes))
    except BotvisionError as error:
        raise BotvisionError(f"{path}: {error}") from error
    load_tensors(model, read_tensors(path), path)
    return ClassificationPredictor(model, description, device=device)
