"""A trained detector as a function of images."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from botvision.datasets.check.images import narrow_fault
from botvision.errors import BotvisionError
from botvision.tasks.detection.build import build_detector
from botvision.tasks.detection.evaluation import detect, max_detections
from botvision.tasks.detection.settings import DetectorSettings
from botvision.tasks.predictor import Box, Predictor
from botvision.tasks.task import find_task, settings_of
from botvision.weights.file import Description, load_tensors, read_tensors

if TYPE_CHECKING:
    import supervision


class DetectionPredictor(Predictor["supervision.Detections"]):
    """Finds instances in images of any size; see ``Predictor``.

    Results are ``supervision.Detections``, best first: ``xyxy`` float32 [n, 4] in pixels,
    ``confidence`` float32 [n], ``class_id`` int64 [n] (the original id of the category), ``mask``
    (a ``supervision.CompactMask`` of [n, H, W]; None for a detector without masks) and
    ``data["class_name"]``.
    """

    threshold = 0.5

    def predict(
        self,
        images: Sequence[Image.Image],
        *,
        threshold: float | None = None,
        tta: bool = False,
    ) -> "list[supervision.Detections]":
        """Predict RGB images; see ``Predictor.__call__``.

        Each image is predicted as if it were alone, see ``detect``.
        """
        if tta:
            raise BotvisionError("tta: expected a classifier, got a detector; leave it out")
        least = self.threshold if threshold is None else threshold
        pixels = [F.pil_to_tensor(each) for each in images]
        found = detect(self.model, pixels, self.description.input.precision, threshold=least)
        ids = np.array([each.id for each in self.description.classes], dtype=np.int64)
        names = np.array(self.classes)
        for detections in found:
            index = detections.class_id
            detections.data["class_name"] = names[index]
            detections.class_id = ids[index]
        return found

    @property
    def max_detections(self) -> int:
        """How many objects are found in an image at most."""
        return max_detections(self.model)

    def limit_detections(self, count: int) -> None:
        """Set ``max_detections``, and let as many regions be proposed; see ``Predictor``."""
        if count < 1:
            raise BotvisionError(f"max_detections: expected 1 or more, got {count}")
        if not hasattr(self.model, "roi_heads"):
            raise BotvisionError(
                f"max_detections: a DETR has one query per object, {self.max_detections} of them; "
                "train one with another model.num_queries"
            )
        self.model.roi_heads.detections_per_img = count
        for proposals in (self.model.rpn._pre_nms_top_n, self.model.rpn._post_nms_top_n):
            proposals["testing"] = max(proposals["testing"], 2 * count)

    @contextlib.contextmanager
    def limited_to(self, count: int | None) -> Iterator[None]:
        """Limit detections inside the block; see ``Predictor``."""
        if count is None or not hasattr(self.model, "roi_heads"):
            with super().limited_to(count):
                yield
            return
        heads, rpn = self.model.roi_heads, self.model.rpn
        before = heads.detections_per_img, dict(rpn._pre_nms_top_n), dict(rpn._post_nms_top_n)
        try:
            self.limit_detections(count)
            yield
        finally:
            heads.detections_per_img, rpn._pre_nms_top_n, rpn._post_nms_top_n = before

    def size_fault(self, size: tuple[int, int]) -> str:
        """Return that an image is too narrow to be resized; "" if it is not."""
        return narrow_fault(size, self.model.transform.max_size)

    def covered_box(self, image: Image.Image) -> Box:
        """Return the image, and the padding to its right and bottom."""
        pixels = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True)
        resized, _ = self.model.transform([pixels])
        padded_height, padded_width = resized.tensors.shape[-2:]
        height, width = resized.image_sizes[0]
        return 0.0, 0.0, image.width * padded_width / width, image.height * padded_height / height


def detection_predictor(
    path: Path,
    description: Description,
    *,
    device: torch.device | None = None,
    image_size: int | None = None,
) -> DetectionPredictor:
    """Build the predictor of a weights file; see ``Task.predictor``."""
    settings: DetectorSettings = settings_of(path, description, "detector")
    # The file holds all weights; none are to be fetched.
    arguments = {k: v for k, v in settings.backbone_arguments.items() if k != "pretrained"}
    settings = settings.model_copy(update={"backbone_arguments": arguments})
    try:
        model: Any = build_detector(settings, len(description.classes) + 1)
    except BotvisionError as error:
        raise BotvisionError(f"{path}: {error}") from error
    load_tensors(model, read_tensors(path), path)
    given = description.input
    model.transform.image_mean, model.transform.image_std = list(given.mean), list(given.std)
    if image_size is not None:
        _resize_to(image_size, model.transform)
        given = given.model_copy(update={"size": image_size})
        description = description.model_copy(update={"input": given})
    predictor = DetectionPredictor(model, description, device=device)
    predictor.task = find_task(description.task).kind(description.model)
    return predictor


def _resize_to(side: int, transform: Any) -> None:
    """Let a detector's transform fit images into another square."""
    if transform.size_divisible == transform.max_size:  # it pads to the whole square, as DETR's
        transform.size_divisible = side
    transform.min_size, transform.max_size = (side,), side
