"""Detection and instance segmentation as a task of the training loop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from botvision.data.augmentation import evaluation_transform, training_transform
from botvision.data.instances import CocoInstances, Target
from botvision.data.pictures import draw_instances, mosaic
from botvision.detection.build import build_detector, load_trunk
from botvision.detection.evaluation import autocast, evaluate_detector
from botvision.detection.pictures import draw_results
from botvision.detection.settings import DetectorSettings
from botvision.errors import BotvisionError

_PICTURES = 8
_SHOWN_SCORE = 0.5
Batch = tuple[list[Tensor], list[Target]]


class DetectionTask:
    """Trains a torchvision detector on a COCO folder and evaluates it with COCO metrics.

    Args:
        settings: The detector.
        folder: COCO folder with the splits "train" and "val".
        scale_jitter: Range of the scale jitter.
        flip: Probability of a horizontal flip.
        batch_size: Images at a time in evaluation.
        precision: "float32", or "bfloat16" for autocast.
        seed: Of the weights and the augmentation.

    Raises:
        BotvisionError: If the data or the detector cannot be used.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        folder: Path,
        *,
        scale_jitter: tuple[float, float],
        flip: float,
        batch_size: int,
        precision: str,
        seed: int,
    ) -> None:
        self._masks = settings.masks
        self._batch_size = batch_size
        self._precision = precision
        transform = training_transform(
            settings.image_size, scale=scale_jitter, flip=flip, pad=not settings.pads_by_itself
        )
        self._train = CocoInstances(
            folder, "train", transform=transform, masks=self._masks, seed=seed
        )
        self._val = CocoInstances(
            folder, "val", transform=evaluation_transform(), masks=self._masks
        )
        for data in (self._train, self._val):
            _check_pictures(data)
        categories = self._train.categories
        torch.manual_seed(seed)
        self.model = build_detector(settings, len(categories) + 1)
        if settings.trunk is not None:
            load_trunk(self.model, settings.trunk)
        self.primary_metric = "mask_ap" if self._masks else "box_ap"
        self.description: dict[str, Any] = {
            "model": settings.model_dump(mode="json", exclude={"trunk"}),
            "categories": [vars(category) for category in categories],
        }
        self._results: list[dict[str, Any]] = []

    def train_data(self) -> CocoInstances:
        """Training items by (epoch, index)."""
        return self._train

    def collate(self, items: Sequence[tuple[Tensor, Target]]) -> Batch:
        """Images and targets of a batch as plain tensors."""
        images = [image.as_subclass(Tensor) for image, _ in items]
        targets = [{key: _plain(value) for key, value in target.items()} for _, target in items]
        return images, targets

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """The detector's losses: of classes and boxes, and those of its own kind."""
        images, targets = batch
        on_device = [
            {key: value.to(device) for key, value in target.items() if isinstance(value, Tensor)}
            for target in targets
        ]
        with autocast(device, self._precision):
            losses: dict[str, Tensor] = model([image.to(device) for image in images], on_device)
        return losses

    def evaluate(self, model: nn.Module, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """COCO metrics on the validation split."""
        metrics, self._results = evaluate_detector(
            model,
            self._val,
            precision=self._precision,
            batch_size=self._batch_size,
            masks=self._masks,
            progress=progress,
        )
        return metrics

    def results(self) -> list[dict[str, Any]]:
        """The last evaluation's detections in COCO's results format."""
        return self._results

    def batch_picture(self, batch: Batch) -> Image.Image:
        """Images of a batch with their targets, as the model sees them."""
        pairs = list(zip(*batch, strict=True))[: 2 * _PICTURES]
        return mosaic([self._truth_picture(image, target) for image, target in pairs])

    def validation_picture(self) -> Image.Image:
        """Truth (left) and detections of score 0.5 and more (right) of the first images."""
        pictures = []
        for index in range(min(_PICTURES, len(self._val))):
            image, target = self._val[(0, index)]
            found = [
                result
                for result in self._results
                if result["image_id"] == target["image_id"] and result["score"] >= _SHOWN_SCORE
            ]
            pictures += [
                self._truth_picture(image, target),
                draw_results(image, found, self._val.categories),
            ]
        return mosaic(pictures, columns=4)

    def _truth_picture(self, image: Tensor, target: Target) -> Image.Image:
        labels = target["labels"].tolist()
        names = [self._train.categories[label - 1].name for label in labels]
        return draw_instances(image, target["boxes"], labels, names, target.get("masks"))


def _check_pictures(data: CocoInstances) -> None:
    """A missing picture is found before the run begins, not in its third hour."""
    for index in range(len(data)):
        path = data.image_path(index)
        if not path.is_file():
            raise BotvisionError(f"{path}: no such picture; {data.annotations.path} names it")


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Tensor) else value
