"""COCO's box and mask metrics, computed by faster-coco-eval with original category ids."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from botvision.datasets.coco.polygons import box_polygons, cut_to_surroundings
from botvision.datasets.coco.store import Category, CocoAnnotations
from botvision.supervision_import import import_supervision

if TYPE_CHECKING:
    from supervision import CompactMask, Detections

_NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
_RECALLS = ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")
METRIC_NAMES = _NAMES + _RECALLS
"""COCO's twelve metrics; ``box_`` or ``mask_`` precedes their names."""
_PER_CLASS = ("ap", "ap_small", "ap_medium", "ap_large")  # in the order of the evaluation's areas


def coco_results(
    detections: "Detections", image_id: int | str, categories: Sequence[Category]
) -> list[dict[str, Any]]:
    """Write one image's detections in COCO's results format.

    Args:
        detections: See ``detect``.
        image_id: COCO's image id.
        categories: Classes in label order.

    Returns:
        Records with ``image_id``, ``category_id``, ``bbox`` [x, y, width, height], ``score`` and,
        for a mask, ``segmentation`` as compressed run lengths.
    """
    boxes = detections.xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    confidence, class_ids = detections.confidence, detections.class_id
    assert confidence is not None
    assert class_ids is not None
    results = []
    rows = zip(boxes.tolist(), class_ids.tolist(), confidence.tolist(), strict=True)
    for index, (box, class_id, score) in enumerate(rows):
        result = {"image_id": image_id, "category_id": categories[class_id].id}
        result |= {"bbox": box, "score": score}
        if detections.mask is not None:
            result["segmentation"] = _run_lengths(detections.mask, index)
        results.append(result)
    return results


def from_coco_results(
    results: Sequence[dict[str, Any]], categories: Sequence[Category], size: tuple[int, int]
) -> "Detections":
    """Read one image's records in COCO's results format, the inverse of ``coco_results``.

    Args:
        results: The records.
        categories: Classes in label order.
        size: (H, W) of the image.
    """
    supervision = import_supervision()
    indices = {category.id: index for index, category in enumerate(categories)}
    boxes = np.array([each["bbox"] for each in results]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    mask = None
    if results and "segmentation" in results[0]:
        encoded = [each["segmentation"] for each in results]
        around = boxes + np.array([-1, -1, 1, 1])  # the sums of bbox are rounded
        mask = supervision.CompactMask.from_coco_rle(encoded, around, size)
    detections: Detections = supervision.Detections(
        xyxy=boxes.astype(np.float32),
        confidence=np.array([each["score"] for each in results], np.float32),
        class_id=np.array([indices[each["category_id"]] for each in results], np.int64),
        mask=mask,
    )
    return detections


def _run_lengths(masks: "CompactMask", index: int) -> dict[str, Any]:
    """Encode one mask as the run lengths of COCO's whole image, from its crop alone."""
    height, width = masks.image_shape
    left, top = masks.offsets[index].tolist()
    crop = masks.crop(index)
    columns = np.zeros((crop.shape[1], height), bool)  # COCO counts down the columns
    columns[:, top : top + len(crop)] = crop.T
    changes = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False))
    counts = np.diff(left * height + changes, prepend=0, append=height * width).tolist()
    if counts[-1] == 0:  # the mask reaches the last pixel
        counts.pop()
    (encoded,) = coco_mask.frPyObjects([{"size": [height, width], "counts": counts}], height, width)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


class CocoMetrics:
    """Collects detections image by image and computes COCO's metrics.

    The ground truth is what ``read_annotations`` accepts. Detections in crowds count as neither
    right nor wrong.

    Args:
        annotations: Ground truth.
        masks: Whether to evaluate masks besides boxes.

    Attributes:
        results: Processed detections in COCO's results format.
        precision: Precision of the last ``evaluate`` by kind, "box" and perhaps "mask": [IoU
            thresholds 0.5, 0.55 .. 0.95, recalls 0, 0.01 .. 1, classes by label] for objects of all
            sizes; -1 for classes without ground truth.
    """

    def __init__(self, annotations: CocoAnnotations, *, masks: bool) -> None:
        # The evaluation needs numbers as ids. Strings come last, so that numbers keep their
        # order, which decides between detections of equal scores.
        ids = sorted(annotations.instances, key=lambda each: (isinstance(each, str), each))
        self._numbers = {image_id: number for number, image_id in enumerate(ids, start=1)}
        # In the order of the labels, so that ids, which are each file's own, decide nothing.
        self._classes = {each.id: index + 1 for index, each in enumerate(annotations.categories)}
        self._truth = COCO(_truth(annotations, self._numbers, self._classes))
        self._kinds = {"box": "bbox", "mask": "segm"} if masks else {"box": "bbox"}
        self.results: list[dict[str, Any]] = []
        self.precision: dict[str, NDArray[np.float64]] = {}

    def process(self, results: list[dict[str, Any]]) -> None:
        """Add one image's results, see ``coco_results``."""
        self.results.extend(results)

    def evaluate(self) -> dict[str, Any]:
        """Compute COCO's twelve metrics of each kind, and the AP of each class and size.

        Returns:
            ``box_ap``, ``box_ap50``, ``box_ap75``, ``box_ap_small`` ... ``box_ar_large``, the
            same with ``mask_``, each in 0..1, or -1 without ground truth of that size; and
            ``box_ap_per_class``, ``box_ap_small_per_class``, ``box_ap_medium_per_class`` and
            ``box_ap_large_per_class`` (``mask_...``): AP by category name.
        """
        metrics: dict[str, Any] = {}
        for kind, iou_type in self._kinds.items():
            # Without a box the size class is that of the mask, as on COCO's server.
            left_out = () if kind == "box" else ("bbox",)
            results = [
                {key: value for key, value in result.items() if key not in left_out}
                | {
                    "image_id": self._numbers[result["image_id"]],
                    "category_id": self._classes[result["category_id"]],
                }
                for result in self.results
            ]
            evaluation = COCOeval_faster(
                self._truth, self._truth.loadRes(results), iouType=iou_type, separate_eval=False
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # means over classes without ground truth
                evaluation.run()
            for name, value in zip(_NAMES + _RECALLS, evaluation.stats[:12], strict=True):
                metrics[f"{kind}_{name}"] = float(value)
            # [IoU thresholds, recalls, classes, areas], for the largest number of detections
            precision = evaluation.eval["precision"][..., -1]
            self.precision[kind] = precision[..., 0].copy()
            classes = [self._truth.cats[each]["name"] for each in evaluation.params.catIds]
            for area, name in enumerate(_PER_CLASS):
                per_class = metrics[f"{kind}_{name}_per_class"] = {}
                for index, class_name in enumerate(classes):
                    values = precision[:, :, index, area]
                    present = values[values > -1]
                    per_class[class_name] = float(present.mean()) if present.size else -1.0
        return metrics


def _truth(
    annotations: CocoAnnotations, numbers: Mapping[Any, int], classes: Mapping[int, int]
) -> dict[str, Any]:
    """Return the ground truth as the content of a COCO file with these numbers as ids."""
    instances: list[dict[str, Any]] = []
    images = list(annotations.images)
    for image in images:
        number = numbers[image["id"]]
        for record in annotations.instances[image["id"]]:
            box = record["bbox"]
            # Without an outline the box is filled, as in training.
            outline = record["segmentation"] or box_polygons(box)
            if isinstance(outline, list):
                outline = cut_to_surroundings(outline, image["height"], image["width"])
            instances.append(
                {
                    "area": box[2] * box[3],
                    **record,
                    # The evaluation takes a match with annotation 0 as no match.
                    "id": len(instances) + 1,
                    "image_id": number,
                    "category_id": classes[record["category_id"]],
                    "segmentation": outline,
                }
            )
    return {
        "images": [{**image, "id": numbers[image["id"]]} for image in images],
        "categories": [
            {"id": classes[each.id], "name": each.name} for each in annotations.categories
        ],
        "annotations": instances,
    }
