"""Writing a COCO folder as shards."""

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from botvision.datasets.check.image_checks import find_images
from botvision.datasets.coco.annotations import CocoAnnotations, read_annotations
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split
from botvision.errors import BotvisionError
from botvision.files import new_folder
from botvision.images.sources import ImageSource
from botvision.shards.read import open_images
from botvision.shards.write import Sample, stored_order, write_manifest, write_shards


def shard_coco(
    folder: Path,
    out: Path,
    *,
    shard_size: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, tuple[int, int]]:
    """Write a COCO folder whose images are in shards, ``images/<split>/00000.tar`` and so on.

    Annotation files keep all that they hold, but for the order of the training images: images
    that stand together in a file are often alike, and those of a shard are trained on together.
    Images are not looked into.

    Args:
        folder: See ``find_coco_split``.
        out: Folder to make.
        shard_size: Bytes after which a shard ends.
        progress: Called with what is being done, the images done and their number.

    Returns:
        The numbers of images and of shards of each split.

    Raises:
        BotvisionError: If the annotations are not as they should be, or an image is missing.
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
    progress: Callable[[str, int, int], None],
) -> tuple[int, int]:
    annotations = read_annotations(where.annotations)
    source = open_images(where.images)
    _check(annotations, source)
    content = json.loads(where.annotations.read_bytes())
    images = content["images"]
    images = content["images"] = [images[place] for place in stored_order(name, len(images))]
    labels: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for record in content["annotations"]:
        labels[record["image_id"]].append(record)
    samples = (
        Sample(
            image["file_name"],
            partial(source.content, image["file_name"]),
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
        progress=lambda done: progress(f"write {name}", done, len(images)),
    )
    (out / "annotations" / f"instances_{name}.json").write_bytes(_as_json(content))
    return len(images), shards


def _check(annotations: CocoAnnotations, images: ImageSource) -> None:
    if not len(annotations.images):
        raise BotvisionError(f"{annotations.path}: images: expected at least one, got none")
    seen: set[str] = set()
    for place, finding in find_images(annotations, images):
        if finding is not None:
            raise BotvisionError(f"{finding.message}; botvision data check lists all that is wrong")
        name = annotations.images[place]["file_name"]
        if name in seen:
            raise BotvisionError(
                f"{annotations.path}: file_name {name!r}: expected a record for each image, got "
                "two; leave one of them out"
            )
        seen.add(name)


def _as_json(content: Any) -> bytes:
    return json.dumps(content).encode()
