"""A trained classifier as a function of images."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from botvision.errors import BotvisionError
from botvision.predict.images import ImageInput, as_image
from botvision.processes import processes
from botvision.supervision_import import import_supervision
from botvision.tasks.classification.build import build_classifier
from botvision.tasks.classification.evaluation import class_logits
from botvision.tasks.classification.settings import ClassifierSettings
from botvision.tasks.classification.transforms import evaluation_transform
from botvision.training.settings import TrainingSettings
from botvision.weights.file import load_tensors, read_tensors

if TYPE_CHECKING:
    import supervision

_MOST_THREADS = 8


@dataclass(frozen=True)
class Preparation:
    """How an image becomes what a classifier sees.

    Attributes:
        image_size: Side of the square in pixels.
        crop_pct: Share of the image's shorter side that is looked at.
        mean: Of the channels, images in 0..1.
        std: Likewise.
    """

    image_size: int
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that is looked at: x1, y1, x2, y2 in pixels.

        Args:
            width: Of the image.
            height: Likewise.
        """
        # timm makes the shorter side this many pixels long and cuts out the middle.
        shorter = int(self.image_size / self.crop_pct)
        side = min(width, height) * self.image_size / shorter
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side


class ClassPredictor:
    """Tells the class of images of any size.

    Args:
        model: Gives logits.
        classes: Names of its classes, in the order of its outputs.
        preparation: What it is to see of an image.
        description: Where the weights come from, see ``read_description``.
        precision: That of the training, "float32" or "bfloat16".

    Attributes:
        model: The classifier, in evaluation mode on the best device there is.
        classes: As given; ``class_id`` of a result is a place in it.
        preparation: As given.
        description: As given.
        precision: As given.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        preparation: Preparation,
        description: dict[str, Any],
        *,
        precision: str = "float32",
    ) -> None:
        self.model = model.eval().to(processes().device)
        self.classes = tuple(classes)
        self.preparation = preparation
        self.description = description
        self.precision = precision
        self.transform = evaluation_transform(
            preparation.image_size,
            preparation.crop_pct,
            mean=preparation.mean,
            std=preparation.std,
        )

    def __call__(self, image: ImageInput, *, tta: bool = False) -> "supervision.Classifications":
        """The probabilities of all classes for one image.

        Args:
            image: Path, PIL image, or RGB array uint8 [H, W, 3].
            tta: Average over the image and its mirror image.

        Returns:
            ``class_id``, places in ``classes``, and ``confidence``, their probabilities, the most
            probable first.

        Raises:
            BotvisionError: If the image cannot be read.
        """
        probabilities, places = self.probabilities([image], tta=tta)[0].sort(descending=True)
        found: supervision.Classifications = import_supervision().Classifications(
            class_id=places.numpy().astype(np.int64), confidence=probabilities.numpy()
        )
        return found

    def probabilities(
        self, photos: Sequence[ImageInput], *, tta: bool = False, batch_size: int = 32
    ) -> Tensor:
        """The probabilities of all classes for many images: float32 [n, classes].

        Args:
            photos: As in a call; read and prepared by several threads, a batch at a time.
            tta: Average over an image and its mirror image.
            batch_size: Images at a time.

        Raises:
            BotvisionError: If an image cannot be read.
        """
        parts = [torch.empty(0, len(self.classes))]
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(photos), batch_size):
                batch = photos[start : start + batch_size]
                images = torch.stack([*pool.map(self._prepared, batch)]).to(processes().device)
                logits = class_logits(self.model, images, self.precision, tta=tta)
                parts.append(logits.softmax(dim=1).cpu())
        return torch.cat(parts)

    def _prepared(self, image: ImageInput) -> Tensor:
        return self.transform(as_image(image))


def class_predictor(
    path: Path, description: dict[str, Any], *, image_size: int | None = None
) -> ClassPredictor:
    """A classifier from a weights file.

    Args:
        path: The file.
        description: What it says of itself.
        image_size: Side of the square in pixels; that of the training if None. Position tables
            are resized.

    Raises:
        BotvisionError: If it describes no classifier of ours, or holds another one.
    """
    try:
        settings = ClassifierSettings.model_validate(description["model"])
        training = TrainingSettings.model_validate(description["recipe"]["training"])
        classes = [str(name) for name in description["classes"]]
        preparation = Preparation(
            image_size=image_size or settings.image_size,
            crop_pct=float(description["crop_pct"]),
            mean=tuple(description["mean"]),
            std=tuple(description["std"]),
        )
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise BotvisionError(
            f"{path}: expected a classifier's weights, got a description of something else or of "
            f"another version ({' '.join(str(error).split())})"
        ) from error
    # The file holds all weights; none are to be fetched.
    arguments = {k: v for k, v in settings.classifier_arguments.items() if k != "pretrained"}
    model = build_classifier(
        settings.model_copy(
            update={"classifier_arguments": arguments, "image_size": preparation.image_size}
        ),
        len(classes),
    )
    load_tensors(model, read_tensors(path), path)
    if training.channels_last:  # as it was evaluated in training, so that the figures agree
        model = model.to(memory_format=torch.channels_last)
    return ClassPredictor(model, classes, preparation, description, precision=training.precision)


def network_predictor(
    network: nn.Module, description: dict[str, Any], *, image_size: int | None = None
) -> ClassPredictor:
    """A classifier that ``from_pretrained`` gave, prepared for as its configuration says.

    Args:
        network: With timm's ``pretrained_cfg``.
        description: Its config.json.
        image_size: Side of the square in pixels; that of the configuration if None.
    """
    config: Any = network.pretrained_cfg
    count = int(description["num_classes"])
    names = config.get("label_names") or [str(number) for number in range(count)]
    preparation = Preparation(
        image_size=image_size or int(config["input_size"][-1]),
        crop_pct=float(config.get("crop_pct") or 0.875),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    return ClassPredictor(network, [str(name) for name in names], preparation, description)
