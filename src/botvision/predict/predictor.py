"""A trained detector as a function of pictures."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from botvision.data.coco import Category
from botvision.data.images import read_image
from botvision.detection.build import build_detector
from botvision.detection.coco_metrics import coco_results
from botvision.detection.evaluation import detect
from botvision.detection.settings import read_detector_settings
from botvision.errors import BotvisionError
from botvision.models.hub import HUB, pretrained_file
from botvision.models.weights import load_tensors, read_description, read_tensors
from botvision.processes import processes
from botvision.training.settings import TrainingSettings

if TYPE_CHECKING:
    import supervision

Picture = str | Path | Image.Image | NDArray[np.uint8]


class Predictor:
    """Finds instances in pictures of any size.

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

    def __call__(self, picture: Picture, *, score: float = 0.5) -> "supervision.Detections":
        """Detections in one picture.

        Args:
            picture: Path, PIL image, or RGB array uint8 [H, W, 3].
            score: Smallest score to keep.

        Returns:
            ``xyxy`` in pixels, ``confidence``, ``class_id`` (the category's original id),
            ``mask`` [n, H, W] if the model predicts masks, and ``data["class_name"]``.

        Raises:
            BotvisionError: If the picture cannot be read.
        """
        with warnings.catch_warnings():
            # We draw with torchvision; supervision's hint to install OpenCV is not for us.
            warnings.filterwarnings("ignore", message=".*OpenCV.*")
            import supervision

        output = self._detect(_tensor(picture))
        kept = output["scores"] >= score
        places = output["labels"][kept].numpy() - 1
        return supervision.Detections(
            xyxy=output["boxes"][kept].numpy(),
            confidence=output["scores"][kept].numpy(),
            class_id=np.array([category.id for category in self.categories])[places],
            mask=(output["masks"][kept, 0] >= 0.5).numpy() if "masks" in output else None,
            data={"class_name": np.array([c.name for c in self.categories])[places]},
        )

    def results(self, image: Tensor, image_id: int, *, score: float) -> list[dict[str, Any]]:
        """Detections of an image [3, H, W] in COCO's results format.

        Args:
            image: uint8, or float in 0..1.
            image_id: For the records.
            score: Smallest score to keep.
        """
        records = coco_results(self._detect(image), image_id, self.categories)
        return [record for record in records if record["score"] >= score]

    def _detect(self, image: Tensor) -> dict[str, Tensor]:
        scaled = F.to_dtype(image, torch.float32, scale=True)
        (output,) = detect(self.model, [scaled], self.precision)
        return {name: tensor.cpu() for name, tensor in output.items()}


def load(weights: str | Path) -> Predictor:
    """A ready predictor from a weights file.

    Args:
        weights: ``best.safetensors`` or ``last.safetensors`` of a run; a folder that
            ``save_pretrained`` wrote; or "hf-hub:owner/name", which is fetched.

    Raises:
        BotvisionError: If the file is missing or describes no detector of ours.
    """
    path = Path(weights)
    if path.is_dir() or str(weights).startswith(HUB):
        path = pretrained_file(weights)
    description = read_description(path)
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


def _tensor(picture: Picture) -> Tensor:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"picture: expected RGB uint8 [H, W, 3], got {picture.dtype} {picture.shape}"
            )
        # A copy, for arrays may be read-only (Pillow's) or reversed (OpenCV's BGR turned round).
        return torch.from_numpy(picture.copy()).permute(2, 0, 1)
    image = picture if isinstance(picture, Image.Image) else read_image(Path(picture))
    tensor: Tensor = F.pil_to_tensor(image.convert("RGB"))
    return tensor
