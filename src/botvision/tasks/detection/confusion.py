"""Which classes a detector takes for which."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from botvision.datasets.coco.store import CocoAnnotations
from botvision.images.figures import plain_text
from botvision.supervision_import import import_supervision

_IOU = 0.5
_SCORE = 0.5
_MOST_COUNTS = 25
_MOST_NAMES = 120


def confusion_matrix(
    annotations: CocoAnnotations, results: Sequence[Mapping[str, Any]]
) -> NDArray[np.int64]:
    """Numbers of boxes by true and predicted class, at IoU 0.5 and score 0.5, by supervision.

    A box matches one box at most, of its own class rather than of another, then the one of higher
    IoU. Crowds are left out; what is found in them counts as background.

    Args:
        annotations: The truth.
        results: Detections in COCO's results format.

    Returns:
        [classes + 1, classes + 1]: rows are the truth, columns what was predicted, the last of
        each is the background.
    """
    place = {category.id: index for index, category in enumerate(annotations.categories)}
    found: dict[Any, list[list[float]]] = {image["id"]: [] for image in annotations.images}
    for result in results:
        found[result["image_id"]].append([*_row(result, place), result["score"]])
    truth = {
        image: [_row(each, place) for each in instances if not each.get("iscrowd")]
        for image, instances in annotations.instances.items()
    }
    matrix = import_supervision().ConfusionMatrix.from_tensors(
        predictions=[np.array(found[i], dtype=np.float32).reshape(-1, 6) for i in found],
        targets=[np.array(truth[i], dtype=np.float32).reshape(-1, 5) for i in found],
        classes=[category.name for category in annotations.categories],
        conf_threshold=_SCORE,
        iou_threshold=_IOU,
    )
    return matrix.matrix.astype(np.int64)


def _row(record: Mapping[str, Any], place: Mapping[int, int]) -> list[float]:
    """x1, y1, x2, y2 and class."""
    x, y, width, height = record["bbox"]
    return [x, y, x + width, y + height, place[record["category_id"]]]


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """The matrix as an image: counts where there is room for them, shares as colors.

    A share is that of the true boxes of the row's class; in the last row, of the boxes that were
    predicted to be of the column's class.

    Args:
        matrix: See ``confusion_matrix``.
        names: Class names in its order.
    """
    size = len(matrix)
    many = size - 1 > _MOST_COUNTS
    side = min(4.2 + 0.38 * size, 6 + 0.16 * size, 24)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares[-1] = matrix[-1] / np.maximum(matrix.sum(axis=0), 1)
    # The background is never found in the background: that cell has no meaning.
    cells = np.ma.masked_array(shares, mask=np.zeros(shares.shape, dtype=bool))
    cells[-1, -1] = np.ma.masked
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="lightgray")
    image = axes.imshow(cells, cmap=colors, vmin=0, vmax=1)
    figure.colorbar(
        image, ax=axes, shrink=0.7, label="share of the row; of background, of the column"
    )
    if many:
        axes.set_xticks(np.arange(-0.5, size), minor=True)
        axes.set_yticks(np.arange(-0.5, size), minor=True)
        axes.grid(which="minor", color="lightgray", linewidth=0.3)
        axes.tick_params(which="minor", length=0)
    else:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color)
    if size - 1 <= _MOST_NAMES:
        labels = [*map(plain_text, names), "background"]
        axes.set_xticks(range(size), labels, rotation=90 if size > 4 else 0)
        axes.set_yticks(range(size), labels)
        axes.tick_params(which="major", labelsize=7 if many else 9)
    # Rules set the background apart: what was missed, and what was found where nothing is.
    axes.axhline(size - 1.5, color="black", linewidth=1)
    axes.axvline(size - 1.5, color="black", linewidth=1)
    axes.set(xlabel="predicted", ylabel="truth")
    axes.set_title(
        f"Boxes at IoU {_IOU} and score {_SCORE}, without crowds", fontsize=16 if many else 10
    )
    return figure
