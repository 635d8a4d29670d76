"""The images that an annotation file names: are they there, can they be read, how do they look."""

import hashlib
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from botvision.datasets.check.findings import Finding, shown
from botvision.datasets.coco.polygons import compact_masks
from botvision.datasets.coco.store import CocoAnnotations
from botvision.datasets.loading import load_batches
from botvision.errors import BotvisionError, OutOfMemoryError
from botvision.images.decode import decode_image
from botvision.images.draw import LARGEST_CELL, draw_instances, mosaic
from botvision.shards.read import ImageSource, ShardError, ShardFiles

_READ_AT_ONCE = 8  # images a worker hands over together
_SAMPLES = 16


@dataclass(frozen=True)
class SeenImage:
    """Result of reading an image.

    Attributes:
        index: Index of its record in the annotation file.
        finding: The fault of the image, or None.
        digest: Digest of the file's bytes, empty if the image cannot be read.
    """

    index: int
    finding: Finding | None
    digest: bytes = b""


def outside_fault(annotations: Path, images: ImageSource, record: dict[str, Any]) -> Finding | None:
    """Return the finding if the file name of a record leads out of the image folder.

    Args:
        annotations: Path of the annotation file.
        images: Images of the folder.
        record: COCO record of the image.
    """
    name = record["file_name"]
    expected = f"a path inside {images.folder}"
    if "\0" in name or len(name.splitlines()) > 1:
        expected += ", on one line"
    elif images.inside(name):
        return None
    return Finding(
        "error",
        str(annotations),
        f"image {record['id']}",
        id=record["id"],
        field="file_name",
        value=shown(name),
        expected=expected,
    )


def size_fault(
    annotations: Path, record: dict[str, Any], size: tuple[int, int], name: str
) -> Finding | None:
    """Return the finding if the (width, height) of an image is not that of its record."""
    if (record["width"], record["height"]) == size:
        return None
    expected, value = f"{record['height']} x {record['width']}", f"{size[1]} x {size[0]}"
    said = f"expected {expected}, got {value} in {name}"
    if (record["height"], record["width"]) == size:
        said += "; was it annotated without regard to its EXIF orientation?"
    return Finding(
        "error",
        str(annotations),
        f"image {record['id']}",
        id=record["id"],
        field="height x width",
        value=value,
        expected=expected,
        said=said,
    )


def narrow_fault(size: tuple[float, float], image_size: int) -> str:
    """Return why an image is too narrow for a detector, whose smaller side would vanish; or "".

    Args:
        size: Width and height of the image in pixels.
        image_size: Side in pixels of the square that the detector fits images into.
    """
    width, height = size
    if max(size) <= image_size * min(size):
        return ""
    return (
        f"image of {width:g} x {height:g}: expected a longer side of at most {image_size} times "
        "the shorter one; crop the image"
    )


def find_images(
    annotations: CocoAnnotations,
    images: ImageSource,
    *,
    skip_bad: bool = False,
    image_size: int | None = None,
) -> Iterator[tuple[int, Finding | None]]:
    """Yield the index of every image record, and the finding if the image is not there.

    Args:
        annotations: Annotation file.
        images: Images that the file describes.
        skip_bad: Whether a missing or too narrow image is left out instead of refused.
        image_size: Side of the detector's input in pixels, for which an image may be too narrow;
            None: any image will do.
    """
    for index, record in enumerate(annotations.images):
        fault = outside_fault(annotations.path, images, record)
        if fault is None:
            name = record["file_name"]
            said = images.missing(name)
            if image_size is not None and not said:
                said = narrow_fault((record["width"], record["height"]), image_size)
            if said:
                fault = _unreadable(annotations, images.where(name), record, said, skip_bad)
        yield index, fault


def _unreadable(
    annotations: CocoAnnotations, where: str, record: dict[str, Any], said: str, skip_bad: bool
) -> Finding:
    return Finding(
        "skipped" if skip_bad else "error",
        where,
        id=record["id"],
        field="file_name",
        value=shown(record["file_name"]),
        expected="an image",
        said=f"{said}; image {record['id']} of {annotations.path}",
    )


def read_images(
    annotations: CocoAnnotations,
    images: ImageSource,
    indices: Sequence[int],
    *,
    num_workers: int = 0,
    skip_bad: bool = False,
) -> Iterator[SeenImage]:
    """Read whole images in worker processes.

    Args:
        annotations: Annotation file.
        images: Images that the file describes.
        indices: Indices of image records whose images are there, see ``find_images``.
        num_workers: Number of worker processes; 0 reads in this one.
        skip_bad: Whether an image that cannot be read is left out instead of refused.
    """
    batches = [
        [(0, index) for index in indices[start : start + _READ_AT_ONCE]]
        for start in range(0, len(indices), _READ_AT_ONCE)
    ]
    data = _Images(annotations, images, skip_bad=skip_bad)
    for seen in load_batches(data, batches, collate=list, num_workers=num_workers):
        yield from seen


class _Images(Dataset[SeenImage]):
    def __init__(
        self, annotations: CocoAnnotations, images: ImageSource, *, skip_bad: bool
    ) -> None:
        self._annotations, self._images, self._skip_bad = annotations, images, skip_bad

    @property
    def shard_files(self) -> ShardFiles | None:
        return self._images.files

    def shard(self, index: int) -> int:
        return self._images.shard(self._annotations.images[index]["file_name"])

    def __getitem__(self, key: tuple[int, int]) -> SeenImage:
        _, index = key
        record = self._annotations.images[index]
        name = record["file_name"]
        where = self._images.where(name)
        try:
            content = self._images.content(name)
            size = decode_image(io.BytesIO(content), where).size
        except (ShardError, OutOfMemoryError):
            raise  # nothing is wrong with the image
        except (BotvisionError, OSError) as error:
            said = str(error).removeprefix(f"{where}: ")
            return SeenImage(
                index, _unreadable(self._annotations, where, record, said, self._skip_bad)
            )
        digest = hashlib.blake2b(content, digest_size=16).digest()
        fault = size_fault(self._annotations.path, record, size, PurePosixPath(name).name)
        return SeenImage(index, fault, digest)


def sample_sheet(
    annotations: CocoAnnotations, images: ImageSource, unusable: Collection[int] = ()
) -> Image.Image | None:
    """Draw images from all over the file with their instances, those that have any first.

    Args:
        annotations: Annotation file.
        images: Images that the file describes.
        unusable: Indices of image records to leave out.

    Returns:
        The sheet; None if no image can be read.
    """
    full = np.isin(range(len(annotations.images)), annotations.instance_table().image_index)
    usable = ~np.isin(range(len(annotations.images)), list(unusable))
    candidates = np.flatnonzero(full & usable)
    if not len(candidates):
        candidates = np.flatnonzero(usable)
    count = min(_SAMPLES, len(candidates))
    samples = []
    for index in candidates[np.linspace(0, len(candidates) - 1, count).astype(int)].tolist():
        try:
            samples.append(_sample(annotations, images, index))
        except BotvisionError:
            continue  # a check without contents has not seen that it cannot be read
    return mosaic(samples) if samples else None


def _sample(annotations: CocoAnnotations, images: ImageSource, index: int) -> Image.Image:
    record = annotations.images[index]
    image = F.pil_to_tensor(images.read(record["file_name"]))
    height, width = image.shape[1:]
    if fault := size_fault(annotations.path, record, (width, height), record["file_name"]):
        raise BotvisionError(fault.message)
    instances = annotations.image_instances(index)
    boxes = torch.tensor([each["bbox"] for each in instances], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    numbers = {category.id: i for i, category in enumerate(annotations.categories)}
    classes = [numbers[each["category_id"]] for each in instances]
    return draw_instances(
        image,
        boxes,
        [number + 1 for number in classes],
        [annotations.categories[number].name for number in classes],
        compact_masks(instances, height, width) if instances else None,
        max_side=LARGEST_CELL,
    )
