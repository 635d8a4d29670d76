"""A COCO instances file of any size, with polygons such as people draw."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

_SIZES = ((640, 480), (480, 640), (640, 427), (500, 375))
_CLASSES = 80
_CROWDS = 0.012  # COCO's share
_CHUNK = 10_000


def write_annotation_file(path: Path, *, images: int, instances: int, seed: int = 0) -> None:
    """Write an annotation file; with 118,000 images and 860,000 instances it has COCO's size.

    Outlines have 26 points on average, most fewer and some hundreds, so that a record takes the
    bytes that it takes in COCO's train2017; one instance of a hundred is a crowd of run lengths.

    Args:
        path: File to write.
        images: Number of image records.
        instances: Number of annotation records, over random images.
        seed: The same one gives the same file.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.choice(_SIZES, images)
    image_ids = 9 + 5 * np.arange(images)
    encode = msgspec.json.encode
    categories = [{"id": i + 1, "name": f"class {i + 1}"} for i in range(_CLASSES)]
    records = [
        {
            "license": 1,
            "file_name": f"{number:012d}.jpg",
            "coco_url": f"http://images.invalid/train/{number:012d}.jpg",
            "height": height,
            "width": width,
            "date_captured": "2013-11-14 17:02:52",
            "id": number,
        }
        for number, (width, height) in zip(image_ids.tolist(), sizes.tolist(), strict=True)
    ]
    with path.open("wb") as file:
        file.write(b'{"info":{},"licenses":[],"images":' + encode(records) + b',"annotations":[')
        for start in range(0, instances, _CHUNK):
            number = min(_CHUNK, instances - start)
            chosen = rng.integers(0, images, number)
            drawn = _annotations(rng, start, image_ids[chosen], sizes[chosen])
            file.write((b"," if start else b"") + encode(drawn)[1:-1])
        file.write(b'],"categories":' + encode(categories) + b"}")


def _annotations(
    rng: np.random.Generator, start: int, image_ids: NDArray[Any], sizes: NDArray[Any]
) -> list[dict[str, Any]]:
    """Records of one polygon or crowd each, in images of the ids and sizes."""
    number = len(image_ids)
    points = rng.lognormal(3.0, 0.75, number).astype(int).clip(3, 400)
    ends = points.cumsum()
    owners = np.repeat(np.arange(number), points)
    angles = 2 * np.pi * (np.arange(len(owners)) - (ends - points)[owners]) / points[owners]
    radius = rng.lognormal(3.5, 1, number).clip(3, 250)[owners] * rng.uniform(0.7, 1.1, len(owners))
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners = (rng.random((number, 2)) * sizes)[owners] + radius[:, None] * ways
    corners = corners.clip(0, sizes[owners]).round(2)
    low = np.minimum.reduceat(corners, ends - points)
    boxes = np.concatenate([low, np.maximum.reduceat(corners, ends - points) - low], axis=1)
    boxes[:, 2:] = boxes[:, 2:].clip(1)
    boxes = boxes.round(2)
    outlines = np.split(corners.ravel(), 2 * ends[:-1])
    crowds = rng.random(number) < _CROWDS
    records = []
    for i, (outline, box) in enumerate(zip(outlines, boxes.tolist(), strict=True)):
        width, height = sizes[i].tolist()
        segmentation: Any = [outline.tolist()]
        if crowds[i]:
            segmentation = {"size": [height, width], "counts": _counts(rng, width * height)}
        records.append(
            {
                "segmentation": segmentation,
                "area": round(0.6 * box[2] * box[3], 4),
                "iscrowd": int(crowds[i]),
                "image_id": int(image_ids[i]),
                "bbox": box,
                "category_id": int(rng.integers(1, _CLASSES + 1)),
                "id": 100 + 3 * (start + i),
            }
        )
    return records


def _counts(rng: np.random.Generator, pixels: int) -> list[int]:
    """Run lengths of some hundred columns, whose sum is the image's pixels."""
    edges = np.unique(rng.integers(1, pixels, 300))
    counts: list[int] = np.diff([0, *edges, pixels]).tolist()
    return counts
