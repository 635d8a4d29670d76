"""A classifier with its data, as the training loop sees it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from botvision.datasets.folders.dataset import ClassImages, Item
from botvision.errors import BotvisionError
from botvision.images.draw import mosaic, save_evaluation
from botvision.precision import autocast
from botvision.tasks.classification.build import (
    build_classifier,
    load_classifier_backbone,
    registered,
)
from botvision.tasks.classification.charts import (
    draw_calibration,
    draw_confusion,
    draw_labels,
    draw_per_class,
)
from botvision.tasks.classification.evaluation import classify
from botvision.tasks.classification.metrics import BEST_CLASSES, Predictions, measure
from botvision.tasks.classification.mixing import Mixing
from botvision.tasks.classification.predictor import ClassificationPredictor
from botvision.tasks.classification.settings import ClassifierSettings, ClassImageSettings
from botvision.tasks.classification.transforms import (
    INTERPOLATION,
    evaluation_transform,
    strip_fault,
    training_transform,
)
from botvision.tasks.classification.writer import BLACK, GREEN, RED, Line, captioned
from botvision.weights.file import Description, InputDescription, ModelClass
from botvision.weights.licenses import license_restriction

_IMAGES = 25
_LEAST_FRACTION = 0.005  # of a class in a mixed image, to be named
Batch = tuple[Tensor, Tensor]


def stacked(items: Sequence[Item]) -> Batch:
    """Collate images and labels."""
    images, labels, _ = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels)


def mixed(mixing: Mixing, items: Sequence[Item]) -> Batch:
    """Collate images and mix them; the targets are the fractions of the classes."""
    _, _, keys = zip(*items, strict=True)
    return mixing(*stacked(items), keys[0])


class ClassifierTraining:
    """Trains a timm classifier on labeled images; measures accuracy and calibration.

    Args:
        settings: The classifier.
        data: Its images; ``folder`` must be set.
        batch_size: Images at a time in evaluation.
        num_workers: Processes that read images in evaluation.
        precision: "float32", or "bfloat16" for autocast.
        memory_format: Memory format of the model in training and evaluation.
        seed: Random seed of the weights and the augmentation.

    Raises:
        BotvisionError: If the data or the classifier cannot be used.
    """

    def __init__(
        self,
        settings: ClassifierSettings,
        data: ClassImageSettings,
        *,
        batch_size: int,
        num_workers: int,
        precision: str,
        memory_format: str,
        seed: int,
    ) -> None:
        assert data.folder is not None
        self._label_smoothing = settings.label_smoothing
        self._batch_size = batch_size
        self._workers = num_workers
        self._precision = precision
        # Evaluation resizes whole images first; training does where it pads crops.
        resized = int(settings.image_size / data.crop_pct)
        fault = partial(strip_fault, shorter_side=resized)
        self._train = ClassImages(
            data.folder,
            data.train_split,
            seed=seed,
            skip_bad=data.skip_bad,
            size_fault=fault if data.crop_padding else None,
        )
        self._classes = self._train.classes
        if len(self._classes) < 2:
            raise BotvisionError(
                f"{self._train.source}: expected two classes or more, got only {self._classes[0]!r}"
            )
        self._val = ClassImages(
            data.folder,
            data.val_split,
            classes=self._classes,
            skip_bad=data.skip_bad,
            size_fault=fault,
        )
        torch.manual_seed(seed)
        self.model = build_classifier(settings, len(self._classes))
        self.backbone = self.model
        notes = [
            f"train: {self._train.summary()}; {self._train.class_line()}",
            f"val: {self._val.summary()}",
        ]
        if settings.classifier_arguments.get("pretrained") and (
            restriction := license_restriction(settings.classifier)
        ):
            notes.append(f"classifier {settings.classifier}: {restriction}")
        if settings.backbone_weights is not None:
            notes.append(
                str(load_classifier_backbone(self.model, settings.backbone_weights, self._classes))
            )
        self.notes = tuple(notes)
        config: Any = self.model.pretrained_cfg
        self._mean, self._std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        channels: dict[str, Any] = {"mean": tuple(config["mean"]), "std": tuple(config["std"])}
        self._train.transform = training_transform(data, settings.image_size, **channels)
        self._val.transform = evaluation_transform(settings.image_size, data.crop_pct, **channels)
        self._mix: Mixing | None = None
        self.collate: Callable[[Sequence[Item]], Batch] = stacked
        self.mixes_pairs = False
        if data.mixup or data.cutmix:
            self._mix = Mixing(len(self._classes), mixup=data.mixup, cutmix=data.cutmix, seed=seed)
            self.mixes_pairs = True
            self.collate = partial(mixed, self._mix)  # not the task: workers get no model
        top5 = ("top5",) if len(self._classes) > BEST_CLASSES else ()
        self.headlines = ("top1", *top5)
        self.metric_names = (*self.headlines, "class_mean", "negative_loss")
        self.primary_metric = "top1"
        self.description = Description(
            task="classification",
            model=registered(settings).model_dump(mode="json", exclude={"backbone_weights"}),
            classes=tuple(
                ModelClass(id=index, name=name) for index, name in enumerate(self._classes)
            ),
            input=InputDescription(
                size=settings.image_size,
                mean=tuple(config["mean"]),
                std=tuple(config["std"]),
                interpolation=INTERPOLATION,
                crop=data.crop_pct,
                precision=precision,
                memory_format=memory_format,
            ),
        )
        self._predictions: Predictions | None = None

    def train_data(self) -> ClassImages:
        """Training items by (epoch, index)."""
        return self._train

    def set_training_mode(self, model: nn.Module) -> None:
        """Put the model into training mode."""
        model.train()

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Cross-entropy, with label smoothing."""
        images, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
        with autocast(device, self._precision):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self._label_smoothing)
        return {"cross_entropy": loss}

    def evaluate(
        self, model: nn.Module, progress: Callable[[int, int], None] | None
    ) -> dict[str, Any]:
        """See ``measure``, on the validation split."""
        self._predictions = classify(
            model,
            self._val,
            precision=self._precision,
            batch_size=self._batch_size,
            num_workers=self._workers,
            progress=progress,
        )
        return measure(self._predictions, self._classes)

    def results(self) -> list[dict[str, Any]]:
        """Return each image's path in the split, its class and the five most probable ones."""
        found = self._predictions
        assert found is not None
        rows = []
        for index, label in enumerate(found.labels.tolist()):
            best = zip(
                found.classes[index].tolist(), found.probabilities[index].tolist(), strict=True
            )
            predicted = [{"class": self._classes[i], "probability": value} for i, value in best]
            name, own = self._val.name(index), self._classes[label]
            rows.append({"image": name, "class": own, "predicted": predicted})
        return rows

    def batch_image(self, batch: Batch) -> Image.Image:
        """Images of a batch with their classes, as the model sees them."""
        pairs = zip(*(tensor[:_IMAGES] for tensor in batch), strict=True)
        return mosaic([self._captioned(image, self._named(target)) for image, target in pairs])

    def draw_data(self, folder: Path) -> None:
        """Write ``labels.png``, the number of images of each class."""
        draw_labels(self._train.labels, self._val.labels, self._classes, folder / "labels.png")

    def draw_evaluation(self, folder: Path, epoch: int, *, best: bool) -> None:
        """Write images with their class and what was predicted, the same ones each time.

        They are ``val_epoch<epoch>.jpg`` and ``val_predictions.jpg``; of the best evaluation also
        ``confusion_matrix.png``, ``calibration.png`` and ``per_class.png``.
        """
        found = self._predictions
        assert found is not None
        count = min(_IMAGES, len(self._val))
        chosen = torch.linspace(0, len(self._val) - 1, count).long().tolist()
        sheet = mosaic([self._judged(found, index) for index in chosen])
        save_evaluation(sheet, folder, epoch)
        if best:
            draw_confusion(found, self._classes, folder / "confusion_matrix.png")
            draw_calibration(found, folder / "calibration.png")
            draw_per_class(measure(found, self._classes)["per_class"], folder / "per_class.png")

    def example(
        self, model: nn.Module
    ) -> tuple[ClassificationPredictor, Image.Image, tuple[int, int]]:
        """Return the first image and its middle."""
        image = self._val.image(0)
        device = next(model.parameters()).device
        predictor = ClassificationPredictor(model, self.description, device=device)
        return predictor, image, (image.width // 2, image.height // 2)

    def _judged(self, found: Predictions, index: int) -> Image.Image:
        image, label, _ = self._val[(0, index)]
        best, probability = found.classes[index, 0], float(found.probabilities[index, 0])
        color = GREEN if found.correct[index] else RED
        judged = (f"{probability:.2f} {self._classes[best]}", color)
        return self._captioned(image, [(self._classes[label], BLACK), judged])

    def _named(self, target: Tensor) -> list[Line]:
        """The class of a label, or the two largest of a mixed image."""
        if self._mix is None:
            return [(self._classes[target], BLACK)]
        largest = target.topk(2)
        return [
            (f"{fraction:.2f} {self._classes[index]}" if fraction > _LEAST_FRACTION else "", BLACK)
            for fraction, index in zip(*(each.tolist() for each in largest), strict=True)
        ]

    def _captioned(self, image: Tensor, lines: Sequence[Line]) -> Image.Image:
        return captioned(image, lines, mean=self._mean, std=self._std)
