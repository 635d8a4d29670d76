"""Detection and instance segmentation: the task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botvision.datasets.check.training import check_images
from botvision.datasets.coco.augmentation import evaluation_transform
from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.coco.store import Category
from botvision.errors import BotvisionError
from botvision.shards.mirror import open_data_folder
from botvision.tasks.detection.evaluation import evaluate_detector
from botvision.tasks.detection.predictor import DetectionPredictor, detection_predictor
from botvision.tasks.detection.settings import (
    DETECTORS,
    AnyDetector,
    CocoDataSettings,
    DetectorSettings,
)
from botvision.tasks.detection.training import DetectorTraining
from botvision.tasks.detection.writer import DetectionWriter
from botvision.tasks.task import (
    Card,
    EvaluationOptions,
    MetricTable,
    ProgressCallback,
    Trainable,
    settings_of,
)
from botvision.weights.file import Description

_PIPELINE_TAGS = {
    "instance_segmentation": "image-segmentation",
    "detection": "object-detection",
}
_BATCH_SIZE = 8  # of an evaluation, at most, unless the recipe has a micro batch
_USAGE = (
    'import botvision\n\npredictor = botvision.load("{where}")\ndetections = predictor("image.jpg")'
)


class DetectionTask:
    """Detection with Mask R-CNN, Faster R-CNN or DETR on COCO folders; see ``Task``."""

    name = "detection"
    headlines = ("mask_ap", "box_ap", "mask_ap50", "box_ap50")
    lower_is_better: frozenset[str] = frozenset()
    model_settings = AnyDetector
    data_settings = CocoDataSettings
    data_kind = "a COCO folder"
    predictor = staticmethod(detection_predictor)
    writer = DetectionWriter

    def kind(self, model: Mapping[str, Any]) -> str:
        """Return "instance_segmentation" for a detector with masks, else "detection"."""
        masks = model.get("detector", "mask_rcnn") == "mask_rcnn"
        return "instance_segmentation" if masks else "detection"

    def title(self, model: Mapping[str, Any]) -> str:
        """Return the detector and its backbone."""
        return f"{model.get('detector', '')} {model.get('backbone', '')}".strip()

    def model_keys(self, model: Mapping[str, Any]) -> frozenset[str]:
        """Return the keys that the settings of a detector may have."""
        settings = DETECTORS.get(str(model.get("detector", "mask_rcnn")), DetectorSettings)
        return frozenset(settings.model_fields)

    def build(self, recipe: Any) -> Trainable:
        """Build the data and the detector of a recipe; see ``Task.build``."""
        training = recipe.training
        return DetectorTraining(
            recipe.model,
            recipe.data,
            open_data_folder(recipe.data.folder),
            batch_size=_evaluation_batch_size(training.micro_batch_size, training.batch_size),
            num_workers=training.num_workers,
            precision=training.precision,
            memory_format=training.memory_format,
            seed=training.seed,
        )

    def evaluate(
        self,
        predictor: DetectionPredictor,
        data: str | Path,
        options: EvaluationOptions,
        progress: ProgressCallback | None = None,
    ) -> dict[str, Any]:
        """Return COCO metrics; see ``Task.evaluate`` and ``CocoMetrics.evaluate``."""
        for option in ("tta", "output"):
            if getattr(options, option):
                raise BotvisionError(
                    f"{option}: expected a classifier, got a detector; leave it out"
                )
        masks = predictor.task == "instance_segmentation"
        coco = CocoInstances(
            open_data_folder(str(data)),
            options.split,
            transform=evaluation_transform(),
            masks=masks,
        )
        trained = [Category(each.id, each.name) for each in predictor.description.classes]
        coco.take_classes(trained, "the weights")
        total = len(coco)
        transform: Any = predictor.model.get_submodule("transform")
        check_images(coco, skip_bad=options.skip_bad, image_size=transform.max_size)
        training = predictor.description.recipe_group("training")
        metrics, _ = evaluate_detector(
            predictor.model,
            coco,
            precision=predictor.description.input.precision,
            batch_size=options.batch_size
            or _evaluation_batch_size(
                training.get("micro_batch_size"), training.get("batch_size", _BATCH_SIZE)
            ),
            masks=masks,
            progress=progress,
            note=options.note,
        )
        if options.skip_bad:
            metrics |= {"images": len(coco), "skipped": total - len(coco)}
        return metrics

    def tabulate(self, metrics: Mapping[str, Any]) -> MetricTable:
        """Return one column for boxes and one for masks; see ``Task.tabulate``."""
        kinds = tuple(kind for kind in ("box", "mask") if f"{kind}_ap" in metrics)
        names = [key.removeprefix("box_") for key in metrics if key.startswith("box_")]

        def row(name: str) -> tuple[float | None, ...]:
            return tuple(_measured(metrics[f"{kind}_{name}"]) for kind in kinds)

        per_class = [
            (f"ap of {name}", tuple(_measured(metrics[f"{k}_ap_per_class"][name]) for k in kinds))
            for name in metrics.get("box_ap_per_class", {})
        ]
        rows = [(name, row(name)) for name in names if not name.endswith("_per_class")]
        return MetricTable(kinds, rows, per_class)

    def card(self, description: Description, path: Path) -> Card:
        """Return what a model card says about a detector; see ``Task.card``."""
        settings_of(path, description, "detector")  # refuses other models
        kind, side = self.kind(description.model), description.input.size
        return Card(
            pipeline_tag=_PIPELINE_TAGS[kind],
            title=self.title(description.model),
            usage=_USAGE,
            config={
                "library_name": "botvision",
                "task": kind.replace("_", "-"),
                "model": description.model,
                "num_classes": len(description.classes),
                "label_names": list(description.class_names),
                "label_ids": [each.id for each in description.classes],
                "input_size": [3, side, side],
                "mean": list(description.input.mean),
                "std": list(description.input.std),
            },
        )


def _evaluation_batch_size(micro_batch_size: int | None, batch_size: int) -> int:
    return micro_batch_size or min(batch_size, _BATCH_SIZE)


def _measured(value: float) -> float | None:
    """Return a metric; -1, for which there is no truth, is none."""
    return None if value == -1 else value


TASK = DetectionTask()
