"""Writing COCO folders: ``images/<split>/`` and ``annotations/instances_<split>.json``."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from botvision.errors import BotvisionError


@dataclass(frozen=True)
class CocoImage:
    """Image file and its COCO annotations.

    Attributes:
        path: Image file; it is copied or linked, never changed.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        annotations: COCO records, without ``id`` and ``image_id``.
        image_id: Id of the image in its own data set, if it has one.
        content: Function that returns the image's bytes, in place of the file at ``path``.
    """

    path: Path
    width: int
    height: int
    annotations: list[dict[str, Any]]
    image_id: int | str | None = None
    content: Callable[[], bytes] | None = None


def box_annotation(
    box: tuple[float, float, float, float], category_id: int, **fields: Any
) -> dict[str, Any]:
    """Return a COCO record of a box x, y, width, height in pixels."""
    return {
        "category_id": category_id,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        **fields,
    }


def mask_annotation(mask: NDArray[np.bool_], category_id: int) -> dict[str, Any]:
    """Return a COCO record of a mask [H, W] that is not empty, and of its box, as run lengths."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "category_id": category_id,
        "bbox": [float(side) for side in coco_mask.toBbox(rle)],
        "area": float(coco_mask.area(rle)),
        "iscrowd": 0,
        "segmentation": {**rle, "counts": rle["counts"].decode()},
    }


def polygon_area(polygons: Sequence[Sequence[float]]) -> float:
    """Return the sum of the areas of polygons [x1, y1, x2, y2, ...]."""
    area = 0.0
    for polygon in polygons:
        x, y = np.asarray(polygon, np.float64).reshape(-1, 2).T
        area += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return area


def write_coco(
    folder: Path,
    splits: Mapping[str, Sequence[CocoImage]],
    categories: Sequence[Mapping[str, Any]],
    *,
    link: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a COCO folder.

    Args:
        folder: Empty folder, see ``new_folder``.
        splits: Images of each split.
        categories: COCO records of the classes.
        link: Whether to make hard links instead of copies of the images.
        progress: Called with the number of images done and the total.

    Raises:
        BotvisionError: If an image cannot be linked.
    """
    total = sum(map(len, splits.values()))
    done = 0
    for split, images in splits.items():
        written = []
        (folder / "images" / split).mkdir(parents=True)
        taken: set[str] = set()
        for image in images:
            done += 1
            name = _unique_name(image.path, taken)
            target = folder / "images" / split / name
            if image.content is not None:
                target.write_bytes(image.content())
            else:
                _copy(image.path, target, link=link)
            record = {
                "id": done if image.image_id is None else image.image_id,
                "file_name": f"{split}/{name}",
                "width": image.width,
                "height": image.height,
            }
            written.append((record, image.annotations))
            if progress:
                progress(done, total)
        write_instances(folder, split, written, categories)


def write_instances(
    folder: Path,
    split: str,
    images: Iterable[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
    categories: Sequence[Mapping[str, Any]],
    **fields: Any,
) -> None:
    """Write ``annotations/instances_<split>.json``.

    Args:
        folder: COCO folder.
        split: Name of the split.
        images: Image records and their annotations, without ``id`` and ``image_id``.
        categories: COCO records of the classes.
        fields: Other fields of the file, such as ``info``.
    """
    records: list[Mapping[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, own in images:
        records.append(image)
        for each in own:
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], **each})
    content = {
        **fields,
        "images": records,
        "annotations": annotations,
        "categories": list(categories),
    }
    target = folder / "annotations" / f"instances_{split}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(content), encoding="utf-8")


def _unique_name(path: Path, taken: set[str]) -> str:
    name, number = path.name, 1
    # Without regard to case, for the file systems that have none.
    while name.casefold() in taken:
        number += 1
        name = f"{path.stem}_{number}{path.suffix}"
    taken.add(name.casefold())
    return name


def _copy(source: Path, target: Path, *, link: bool) -> None:
    if not link:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        raise BotvisionError(
            f"{source}: cannot be linked into another file system ({error.strerror}); copy it "
            "instead"
        ) from error
