"""Reading COCO-format instance annotations: polygons, run lengths, crowds."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from botvision.errors import BotvisionError


@dataclass(frozen=True)
class Category:
    """A class as the annotation file names it; ``id`` is kept wherever results are written."""

    id: int
    name: str


@dataclass
class CocoAnnotations:
    """One annotation file, checked.

    Attributes:
        path: The file.
        images: COCO image records, in file order.
        categories: Classes, sorted by id; model label i + 1 is ``categories[i]``.
        instances: Usable annotation records of each image id, crowds included. Boxes are COCO's
            [x, y, width, height] in pixels, clipped to the image.
        skipped: Number of annotations left out, by reason.
    """

    path: Path
    images: list[dict[str, Any]]
    categories: list[Category]
    instances: dict[int, list[dict[str, Any]]]
    skipped: Counter[str] = field(default_factory=Counter)


def find_split(folder: Path, split: str) -> tuple[Path, Path]:
    """Annotation file and picture folder of a split in a COCO folder.

    Looks for ``annotations/instances_<split>.json`` or the one file that begins so (COCO's own
    ``instances_val2017.json``), and for ``images/`` or ``<split>*/``.

    Raises:
        BotvisionError: If the folder or either part is missing; the message says what it needs.
    """
    if not folder.is_dir():
        raise BotvisionError(f"{folder}: no such data folder")
    candidates = [folder / "annotations" / f"instances_{split}.json"]
    if not candidates[0].is_file():
        candidates = sorted((folder / "annotations").glob(f"instances_{split}*.json"))
    if len(candidates) != 1:
        raise BotvisionError(
            f"{folder}: expected annotations/instances_{split}.json, got "
            f"{', '.join(path.name for path in candidates) or 'no such file'}"
        )
    image_folders = [folder / "images", *sorted(folder.glob(f"{split}*"))]
    for images in image_folders:
        if images.is_dir():
            return candidates[0], images
    raise BotvisionError(f"{folder}: expected pictures in images/ or {split}2017/, got neither")


def read_annotations(path: Path) -> CocoAnnotations:
    """Read and check a COCO instances file.

    What cannot be trained on but does no harm (boxes without area, unknown images, polygons of
    fewer than three points) is left out and counted; what shows that the file is not what it
    should be is an error.

    Raises:
        BotvisionError: Naming the file, the record's id, the field and the value.
    """
    content = _read_json(path)
    images = _records(path, content, "images")
    categories = _records(path, content, "categories")
    annotations = _records(path, content, "annotations")
    by_id = {image["id"]: image for image in images}
    known = {category["id"] for category in categories}
    result = CocoAnnotations(
        path=path,
        images=images,
        categories=sorted((Category(c["id"], c["name"]) for c in categories), key=lambda c: c.id),
        instances={image["id"]: [] for image in images},
    )
    for annotation in annotations:
        category = annotation["category_id"]
        if not isinstance(category, int) or category not in known:
            raise BotvisionError(
                f"{path}: annotation {annotation['id']}: category_id: expected one of the file's "
                f"categories, got {category!r}"
            )
        image = by_id.get(annotation["image_id"])
        if image is None:
            result.skipped["image_id without an image"] += 1
            continue
        box = _clipped_box(path, annotation, image)
        if box is None:
            result.skipped["box without area inside the image"] += 1
        elif not _drawable(path, annotation, image):
            result.skipped["polygon of fewer than 3 points or odd length"] += 1
        else:
            result.instances[image["id"]].append({**annotation, "bbox": box})
    return result


def instance_mask(annotation: dict[str, Any], height: int, width: int) -> NDArray[np.uint8]:
    """Mask of an annotation, uint8 [height, width] of 0 and 1.

    Args:
        annotation: COCO record with polygons, compressed or uncompressed run lengths; without a
            segmentation its box is filled.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        BotvisionError: If a run length's size or sum is not the image's.
    """
    segmentation = annotation.get("segmentation")
    if not segmentation:
        segmentation = box_polygons(annotation["bbox"])
    if isinstance(segmentation, dict):
        if fault := _run_length_fault(segmentation, height, width):
            raise BotvisionError(f"annotation {annotation['id']}: segmentation: {fault}")
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects([segmentation], height, width)[0]
        rle = segmentation
    else:
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    mask: NDArray[np.uint8] = coco_mask.decode(rle)
    return mask


def box_polygons(box: Sequence[float]) -> list[list[float]]:
    """A box [x, y, width, height] as a COCO segmentation, for annotations without one."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BotvisionError(f"{path}: not JSON at offset {error.pos}: {error.msg}") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise BotvisionError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise BotvisionError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


_FIELDS: dict[str, dict[str, Any]] = {
    "images": {"id": int | str, "file_name": str, "width": int | float, "height": int | float},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int | str, "image_id": int | str, "category_id": object, "bbox": object},
}


def _records(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    records = content.get(key)
    if not isinstance(records, list):
        raise BotvisionError(f"{path}: {key}: expected a list, got {type(records).__name__}")
    seen: set[Any] = set()
    for number, record in enumerate(records):
        fields = _FIELDS[key]
        missing = fields.keys() - record.keys() if isinstance(record, dict) else fields.keys()
        if missing:
            raise BotvisionError(f"{path}: {key}[{number}]: {', '.join(sorted(missing))} missing")
        for name, kind in fields.items():
            value = record[name]
            side = name in ("width", "height")
            if not isinstance(value, kind) or (side and not value > 0):
                wanted = "a number above 0" if side else getattr(kind, "__name__", str(kind))
                raise BotvisionError(
                    f"{path}: {key}[{number}] with id {record['id']!r}: {name}: expected {wanted}, "
                    f"got {value!r}"
                )
        if record["id"] in seen:
            raise BotvisionError(f"{path}: {key}: id {record['id']!r} occurs twice")
        seen.add(record["id"])
    return records


def _clipped_box(
    path: Path, annotation: dict[str, Any], image: dict[str, Any]
) -> list[float] | None:
    box = annotation["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        raise BotvisionError(
            f"{path}: annotation {annotation['id']}: bbox: expected 4 finite numbers "
            f"[x, y, width, height], got {box!r}"
        )
    x, y, width, height = box
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
    if width <= 0 or height <= 0 or right <= left or bottom <= top:
        return None
    return [left, top, right - left, bottom - top]


def _drawable(path: Path, annotation: dict[str, Any], image: dict[str, Any]) -> bool:
    """Whether polygons can have an area; what is neither they nor run lengths is an error."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return True
    fault = f"expected polygons of finite numbers or run lengths, got {str(segmentation)[:80]}"
    if isinstance(segmentation, dict):
        fault = _run_length_fault(segmentation, image["height"], image["width"])
        if not fault:
            return True
    elif isinstance(segmentation, list) and all(
        isinstance(polygon, list) and all(map(_finite, polygon)) for polygon in segmentation
    ):
        return all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation)
    raise BotvisionError(f"{path}: annotation {annotation['id']}: segmentation: {fault}")


def _run_length_fault(rle: dict[str, Any], height: int, width: int) -> str:
    """What is wrong with run lengths, or nothing."""
    expected = f"expected run lengths of {height} x {width}"
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        return f"{expected}, got size {size!r}"
    if isinstance(counts, list):
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            return f"{expected}, got counts that are no whole numbers from 0"
        if sum(counts) != height * width:
            return f"{expected}, got counts for {sum(counts)} pixels"
        return ""
    if not isinstance(counts, str):
        return f"{expected}, got counts of type {type(counts).__name__}"
    try:
        coco_mask.decode(rle)
    except (ValueError, RuntimeError) as error:
        return f"{expected}, got counts that cannot be decoded ({error})"
    return ""


def _finite(value: Any) -> bool:
    # Also refuses integers beyond floating point, which math.isfinite cannot take.
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max
