"""Writing COCO folders: ``images/<split>/`` and ``annotations/instances_<split>.json``."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from botvision.errors import BotvisionError


@dataclass(frozen=True)
class CocoImage:
    """An image and its COCO annotations.

    Attributes:
        path: The user's file; it is copied or linked, never changed.
        width: Of the upright image, pixels.
        height: Of the upright image, pixels.
        annotations: COCO records, without ``id`` and ``image_id``.
        image_id: The id it has in its own data set, if it has one.
    """

    path: Path
    width: int
    height: int
    annotations: list[dict[str, Any]]
    image_id: int | str | None = None


def box_annotation(
    box: tuple[float, float, float, float], category_id: int, **fields: Any
) -> dict[str, Any]:
    """A COCO record of a box x, y, width, height without a mask."""
    return {
        "category_id": category_id,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        **fields,
    }


def mask_annotation(mask: NDArray[np.bool_], category_id: int) -> dict[str, Any]:
    """A COCO record of a mask that is not empty, as run lengths; its box is the mask's."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "category_id": category_id,
        "bbox": [float(side) for side in coco_mask.toBbox(rle)],
        "area": float(coco_mask.area(rle)),
        "iscrowd": 0,
        "segmentation": {**rle, "counts": rle["counts"].decode()},
    }


def polygon_area(polygons: Sequence[Sequence[float]]) -> float:
    """Area of polygons [x1, y1, x2, y2, ...], each by itself."""
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
    progress: Callable[[int, int], None],
) -> None:
    """Write a COCO folder.

    Args:
        folder: An empty folder, see ``new_folder``.
        splits: Images of each split.
        categories: COCO's records of the classes.
        link: Hard links instead of copies of the photos.
        progress: Called with the photos done and their number.

    Raises:
        BotvisionError: If an image cannot be linked.
    """
    (folder / "annotations").mkdir()
    total = sum(map(len, splits.values()))
    done = 0
    for split, photos in splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        (folder / "images" / split).mkdir(parents=True)
        taken: set[str] = set()
        for image in photos:
            done += 1
            name = _unique_name(image.path, taken)
            _place(image.path, folder / "images" / split / name, link=link)
            image_id = done if image.image_id is None else image.image_id
            images.append(
                {
                    "id": image_id,
                    "file_name": f"{split}/{name}",
                    "width": image.width,
                    "height": image.height,
                }
            )
            for record in image.annotations:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, **record})
            progress(done, total)
        content = {"images": images, "annotations": annotations, "categories": list(categories)}
        target = folder / "annotations" / f"instances_{split}.json"
        target.write_text(json.dumps(content), encoding="utf-8")


def _unique_name(path: Path, taken: set[str]) -> str:
    name, number = path.name, 1
    # Without regard to case, for the file systems that have none.
    while name.casefold() in taken:
        number += 1
        name = f"{path.stem}_{number}{path.suffix}"
    taken.add(name.casefold())
    return name


def _place(source: Path, target: Path, *, link: bool) -> None:
    if not link:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        raise BotvisionError(
            f"{source}: cannot be linked into another file system ({error.strerror}); leave out "
            "--link to copy"
        ) from error
