"""Classification: the task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from botvision.datasets.folders.dataset import ClassImages
from botvision.errors import BotvisionError
from botvision.models import create_model, list_models
from botvision.models.botify import botify
from botvision.models.names import registered_name
from botvision.tasks.classification.charts import draw_calibration, draw_confusion, draw_per_class
from botvision.tasks.classification.evaluation import classify
from botvision.tasks.classification.metrics import measure
from botvision.tasks.classification.predictor import (
    ClassificationPredictor,
    classification_predictor,
)
from botvision.tasks.classification.settings import ClassifierSettings, ClassImageSettings
from botvision.tasks.classification.training import ClassifierTraining
from botvision.tasks.classification.writer import ClassificationWriter
from botvision.tasks.task import (
    Card,
    EvaluationOptions,
    MetricTable,
    ProgressCallback,
    Trainable,
    settings_of,
)
from botvision.weights.file import Description
from botvision.weights.hub_config import network_config
from botvision.weights.model_card import TIMM_USAGE

_BATCH_SIZE = 64  # where the weights do not say what the training had
_USAGE = (
    'import botvision\n\npredictor = botvision.load("{where}")\n'
    'classifications = predictor("image.jpg")  # class_id: indices into predictor.classes'
)


class ClassificationTask:
    """Classification of images with timm models; see ``Task``."""

    name = "classification"
    headlines = ("top1", "top5")
    lower_is_better = frozenset({"loss", "calibration_error"})
    model_settings = ClassifierSettings
    data_settings = ClassImageSettings
    data_kind = "class folders"
    predictor = staticmethod(classification_predictor)
    writer = ClassificationWriter

    def kind(self, model: Mapping[str, Any]) -> str:
        """Return "classification"."""
        del model
        return self.name

    def title(self, model: Mapping[str, Any]) -> str:
        """Return the name of the network."""
        return str(model.get("classifier", ""))

    def model_keys(self, model: Mapping[str, Any]) -> frozenset[str]:
        """Return the keys that the settings of a classifier may have."""
        del model
        return frozenset(ClassifierSettings.model_fields)

    def build(self, recipe: Any) -> Trainable:
        """Build the data and the classifier of a recipe; see ``Task.build``."""
        training = recipe.training
        return ClassifierTraining(
            recipe.model,
            recipe.data,
            batch_size=training.micro_batch_size or training.batch_size,
            num_workers=training.num_workers,
            precision=training.precision,
            memory_format=training.memory_format,
            seed=training.seed,
        )

    def evaluate(
        self,
        predictor: ClassificationPredictor,
        data: str | Path,
        options: EvaluationOptions,
        progress: ProgressCallback | None = None,
    ) -> dict[str, Any]:
        """Return accuracy and calibration; see ``Task.evaluate`` and ``measure``.

        The metrics also hold ``images``, the number of images evaluated, and ``skipped``.
        """
        images = ClassImages(
            str(data),
            options.split,
            classes=predictor.classes,
            origin="the weights",
            skip_bad=options.skip_bad,
            size_fault=predictor.size_fault,
        )
        images.transform = predictor.transform
        if options.note is not None and images.left_out:
            options.note(f"{images.source}: {images.left_out}")
        training = predictor.description.recipe_group("training")
        predictions = classify(
            predictor.model,
            images,
            precision=predictor.description.input.precision,
            batch_size=options.batch_size
            or training.get("micro_batch_size")
            or training.get("batch_size", _BATCH_SIZE),
            num_workers=training.get("num_workers", 0),
            tta=options.tta,
            progress=progress,
        )
        metrics = measure(predictions, predictor.classes)
        output = options.output
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            draw_confusion(predictions, predictor.classes, output / "confusion_matrix.png")
            draw_calibration(predictions, output / "calibration.png")
            draw_per_class(metrics["per_class"], output / "per_class.png")
        return {**metrics, "images": len(images), "skipped": len(images.skipped)}

    def tabulate(self, metrics: Mapping[str, Any]) -> MetricTable:
        """Return one column; see ``Task.tabulate``."""
        rows: list[tuple[str, tuple[float | None, ...]]] = [
            (name, (value,))
            for name, value in metrics.items()
            # The negated loss is there for choosing the best weights only.
            if isinstance(value, float) and not name.startswith("negative_")
        ]
        per_class: list[tuple[str, tuple[float | None, ...]]] = [
            (f"accuracy of {name}", (value,))
            for name, value in metrics.get("per_class", {}).items()
        ]
        return MetricTable(("value",), rows, per_class)

    def card(self, description: Description, path: Path) -> Card:
        """Return what a model card says about a classifier; see ``Task.card``."""
        config = _config(settings_of(path, description, "classifier"), description, path)
        return Card(
            pipeline_tag="image-classification",
            title=self.title(description.model),
            usage=TIMM_USAGE if "architecture" in config else _USAGE,
            config=config,
        )


def _config(settings: ClassifierSettings, description: Description, path: Path) -> dict[str, Any]:
    """Return config.json: timm's; of a stem of ours, which timm cannot build, botvision's own."""
    given, names = description.input, list(description.class_names)
    prepared = {
        "input_size": (3, given.size, given.size),
        "interpolation": given.interpolation,
        "crop_pct": given.crop,
        "mean": given.mean,
        "std": given.std,
    }
    config: dict[str, Any] = {"task": "image-classification"}
    if settings.stem != "imagenet":
        config |= {"library_name": "botvision", "model": description.model}
        return {**config, "num_classes": len(names), "label_names": names, **prepared}
    arguments = dict(settings.classifier_arguments)
    try:
        name = registered_name(settings.classifier)
        if timm.get_pretrained_cfg(name).fixed_input_size or name in list_models():
            arguments["img_size"] = given.size
        with torch.device("meta"):
            network = create_model(name, num_classes=len(names), **arguments)
            if settings.botify is not None:
                botify(network, **settings.botify)
        config |= network_config(network, labels=names, arguments=arguments, preprocessing=prepared)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise BotvisionError(
            f"{path}: the network cannot be built from its description ({error!r})"
        ) from error
    return config


TASK = ClassificationTask()
