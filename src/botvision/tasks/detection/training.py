"""A detector with its data, as the training loop sees it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from botvision.datasets.check.statistics import draw_statistics
from botvision.datasets.check.training import check_contents, check_images
from botvision.datasets.coco.augmentation import evaluation_transform, training_transform
from botvision.datasets.coco.dataset import CocoInstances, Target
from botvision.datasets.coco.polygons import compact_masks
from botvision.images.draw import LARGEST_CELL, draw_instances, mosaic, save_evaluation
from botvision.precision import autocast
from botvision.tasks.detection.build import build_detector, load_backbone_weights, registered
from botvision.tasks.detection.charts import draw_charts
from botvision.tasks.detection.detectors.batch_norm import freeze_batch_norm, hold_batch_norm
from botvision.tasks.detection.evaluation import evaluate_detector
from botvision.tasks.detection.metrics import METRIC_NAMES, CocoMetrics, from_coco_results
from botvision.tasks.detection.predictor import DetectionPredictor
from botvision.tasks.detection.settings import CocoDataSettings, DetectorSettings
from botvision.tasks.detection.writer import draw_detections
from botvision.weights.file import Description, InputDescription, ModelClass

_IMAGES = 8
_SHOWN_SCORE = 0.5
Batch = tuple[list[Tensor], list[Target]]


class DetectorTraining:
    """Trains a torchvision detector on a COCO folder and evaluates it with COCO metrics.

    Args:
        settings: The detector.
        data: The data and its augmentation.
        folder: COCO folder.
        batch_size: Images per batch in evaluation.
        num_workers: Processes that read images in evaluation.
        precision: "float32", or "bfloat16" for autocast.
        memory_format: Memory format of the model in training and evaluation.
        seed: Random seed of the weights and the augmentation.

    Raises:
        BotvisionError: If the data or the detector cannot be used.
    """

    mixes_pairs = False

    def __init__(
        self,
        settings: DetectorSettings,
        data: CocoDataSettings,
        folder: Path,
        *,
        batch_size: int,
        num_workers: int,
        precision: str,
        memory_format: str,
        seed: int,
    ) -> None:
        self._masks = settings.masks
        self._batch_size = batch_size
        self._workers = num_workers
        self._precision = precision
        train, val = (
            CocoInstances(folder, split, masks=self._masks, seed=seed)
            for split in (data.train_split, data.val_split)
        )
        for each in (train, val):  # first, as looking for the images of a large file takes a while
            check_contents(each, trained_on=each is train, masks=self._masks)
        val.take_classes(train.categories, train.annotations.path.name)
        notes: list[str] = []
        for each in (train, val):
            left_out = check_images(
                each,
                skip_bad=data.skip_bad,
                num_workers=num_workers,
                image_size=settings.image_size,
            )
            notes += [left_out] if left_out else []
            notes += check_contents(each, trained_on=each is train, masks=self._masks)
        self._train, self._val = train, val
        categories = train.categories
        torch.manual_seed(seed)
        self.model = build_detector(settings, len(categories) + 1)
        detector_transform: Any = self.model.get_submodule("transform")
        train.transform = training_transform(
            settings.image_size,
            scale=data.scale_jitter,
            flip=data.flip,
            color_jitter=data.color_jitter,
            padding=None if settings.pads_by_itself else detector_transform.image_mean,
        )
        train.copy_paste = data.copy_paste
        val.transform = evaluation_transform()
        self.backbone = self.model.get_submodule("backbone.body")
        pyramid: Any = self.model.get_submodule("backbone")
        notes += pyramid.notes
        taken: tuple[str, ...] = ()
        if settings.backbone_weights is not None:
            report = load_backbone_weights(self.model, settings.backbone_weights)
            taken = report.taken
            notes.append(str(report))
        self._frozen: list[str] = []
        if settings.batch_norm == "frozen":
            self._frozen = freeze_batch_norm(self.backbone, taken)
            notes.append(f"BatchNorm frozen in {len(self._frozen)} layers of the backbone")
        self.notes = tuple(notes)
        kinds = ("box", "mask") if self._masks else ("box",)
        self.metric_names = tuple(f"{kind}_{name}" for kind in kinds for name in METRIC_NAMES)
        self.primary_metric = "mask_ap" if self._masks else "box_ap"
        self.headlines = tuple(f"{kind}_{name}" for kind in kinds for name in ("ap", "ap50"))
        self.description = Description(
            task="detection",
            model=registered(settings).model_dump(mode="json", exclude={"backbone_weights"}),
            classes=tuple(ModelClass(id=each.id, name=each.name) for each in categories),
            input=InputDescription(
                size=settings.image_size,
                mean=tuple(detector_transform.image_mean),
                std=tuple(detector_transform.image_std),
                interpolation="bilinear",
                crop=None,
                precision=precision,
                memory_format=memory_format,
            ),
        )
        self._evaluation: CocoMetrics | None = None
        self._figures: dict[str, Any] = {}

    def train_data(self) -> CocoInstances:
        """Training items by (epoch, index)."""
        return self._train

    @staticmethod
    def collate(items: Sequence[tuple[Tensor, Target]]) -> Batch:
        """Collate images and targets as plain tensors."""
        images = [image.as_subclass(Tensor) for image, _ in items]
        targets = [{key: _plain(value) for key, value in target.items()} for _, target in items]
        return images, targets

    def set_training_mode(self, model: nn.Module) -> None:
        """Put the detector into training mode, but for frozen BatchNorm."""
        model.train()
        hold_batch_norm(self.backbone, self._frozen)

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

    def evaluate(
        self, model: nn.Module, progress: Callable[[int, int], None] | None
    ) -> dict[str, Any]:
        """COCO metrics on the validation split."""
        self._figures, self._evaluation = evaluate_detector(
            model,
            self._val,
            precision=self._precision,
            batch_size=self._batch_size,
            masks=self._masks,
            num_workers=self._workers,
            progress=progress,
        )
        return self._figures

    def results(self) -> list[dict[str, Any]]:
        """The last evaluation's detections in COCO's results format."""
        return [] if self._evaluation is None else self._evaluation.results

    def batch_image(self, batch: Batch) -> Image.Image:
        """Images of a batch with their targets, as the model sees them."""
        pairs = list(zip(*batch, strict=True))[: 2 * _IMAGES]
        return mosaic([self._truth_image(image, target) for image, target in pairs])

    def draw_data(self, folder: Path) -> None:
        """Write ``labels.png``: what the training data holds."""
        draw_statistics(self._train.annotations, folder / "labels.png")

    def draw_evaluation(self, folder: Path, epoch: int, *, best: bool) -> None:
        """Write truth beside detections, always of the same images; of the best also charts."""
        save_evaluation(self._validation_image(), folder, epoch)
        if best and self._evaluation is not None:
            results, precision = self._evaluation.results, self._evaluation.precision
            draw_charts(folder, self._val.annotations, results, self._figures, precision)

    def example(self, model: nn.Module) -> tuple[DetectionPredictor, Image.Image, tuple[int, int]]:
        """Return the first image with an object, and the middle of its largest one."""
        val = self._val.without_masks()
        indices = range(len(val))
        first = next((each for each in indices if val.annotations.image_instances(each)), 0)
        image, target = val[(0, first)]
        x, y = image.shape[-1] // 2, image.shape[-2] // 2
        if len(target["boxes"]):
            sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
            largest = target["boxes"][sides.prod(1).argmax()]
            x, y = ((largest[:2] + largest[2:]) / 2).long().tolist()
        device = next(model.parameters()).device
        predictor = DetectionPredictor(model, self.description, device=device)
        return predictor, F.to_pil_image(image.as_subclass(Tensor)), (x, y)

    def _validation_image(self) -> Image.Image:
        """Truth (left) and detections of score 0.5 and more (right) of the first images."""
        images = []
        val = self._val.without_masks()  # those of a photograph take gigabytes
        for index in range(min(_IMAGES, len(val))):
            image, target = val[(0, index)]
            found = [
                result
                for result in self.results()
                if result["image_id"] == target["image_id"] and result["score"] >= _SHOWN_SCORE
            ]
            size = (image.shape[-2], image.shape[-1])
            detections = from_coco_results(found, self._val.categories, size)
            names = self.description.class_names
            if self._masks and len(target["labels"]):
                truth = val.annotations.image_instances(index)
                shown = [each for each in truth if not each["iscrowd"]]
                target["masks"] = compact_masks(shown, *size)
            images.append(self._truth_image(image, target))
            images.append(draw_detections(image, detections, names, max_side=LARGEST_CELL))
        return mosaic(images, columns=4)

    def _truth_image(self, image: Tensor, target: Target) -> Image.Image:
        labels = target["labels"].tolist()
        names = [self._train.categories[label - 1].name for label in labels]
        boxes, masks = target["boxes"], target.get("masks")
        return draw_instances(image, boxes, labels, names, masks, max_side=LARGEST_CELL)


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Tensor) else value
