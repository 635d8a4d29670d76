"""Writing a COCO folder as shards."""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botvision.datasets.check.images import find_images
from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.store import CocoAnnotations
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split
from botvision.errors import BotvisionError
from botvision.files import new_folder
from botvision.shards.read import ImageSource, open_images
from botvision.shards.write import Sample, stored_order, write_manifest, write_shards


def shard_coco(
    folder: Path,
    out: Path,
    *,
    shard_size: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, tuple[int, int]]:
    """Write a COCO folder whose images are in shards, ``images/<split>/00000.tar`` and so on.

    Annotation files keep all their content, except that training images are shuffled: neighbors in
    a file are often alike, and images of a shard are trained on together. Images are not decoded.

    Args:
        folder: COCO folder, see ``find_coco_split``.
        out: Folder to write; must not exist.
        shard_size: Size in bytes after which a shard ends.
        progress: Called with a title, the number of images done and the total.

    Returns:
        The numbers of images and of shards of each split.

    Raises:
        BotvisionError: If an annotation file is faulty or an image is missing.
    """
    splits = coco_splits(folder) or {"train": find_coco_split(folder, "train")}
    counts = {}
    with new_folder(out) as written:
        (written / "annotations").mkdir()
        for name, where in splits.items():
            counts[name] = _shard_split(name, where, written, shard_size, progress)
        write_manifest(written)
    return counts


def _shard_split(
    name: str,
    where: CocoSplit,
    out: Path,
    shard_size: int,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[int, int]:
    annotations = read_annotations(where.annotations)
    source = open_images(where.images)
    _check(annotations, source)
    content = json.loads(where.annotations.read_bytes())
    images = content["images"]
    for image, known in zip(images, annotations.images, strict=True):
        image["file_name"] = known["file_name"]  # LVIS has an address instead
    images = content["images"] = [images[index] for index in stored_order(name, len(images))]
    labels: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for record in content["annotations"]:
        labels[record["image_id"]].append(record)
    samples = (
        Sample(
            image["file_name"],
            source.content(image["file_name"]),
            (".json", _as_json({"image": image, "annotations": labels[image["id"]]})),
        )
        for image in images
    )
    folder = out / "images" / name
    folder.mkdir(parents=True)
    shards = write_shards(
        folder,
        samples,
        shard_size=shard_size,
        progress=lambda done: progress(f"write {name}", done, len(images)) if progress else None,
    )
    (out / "annotations" / f"instances_{name}.json").write_bytes(_as_json(content))
    return len(images), shards


def _check(annotations: CocoAnnotations, images: ImageSource) -> None:
    if not len(annotations.images):
        raise BotvisionError(f"{annotations.path}: images: expected at least one, got none")
    seen: set[str] = set()
    for index, finding in find_images(annotations, images):
        if finding is not None:
            raise BotvisionError(f"{finding.message}; botvision data check lists all that is wrong")
        name = annotations.images[index]["file_name"]
        if name in seen:
            raise BotvisionError(
                f"{annotations.path}: file_name {name!r}: expected a record for each image, got "
                "two; leave one of them out"
            )
        seen.add(name)


def _as_json(content: Any) -> bytes:
    return json.dumps(content).encode()
