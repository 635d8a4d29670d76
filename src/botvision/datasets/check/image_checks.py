"""Checking the images that an annotation file names: their places, contents and sizes."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torch.utils.data import Dataset

from botvision.datasets.check.findings import Finding, shown
from botvision.datasets.coco.annotations import CocoAnnotations
from botvision.datasets.loading import load_batches
from botvision.errors import BotvisionError
from botvision.images.decode import decode_image
from botvision.images.sources import ImageSource, Shards
from botvision.shards.read import ShardError

_READ_AT_ONCE = 8  # images a worker hands over together


@dataclass(frozen=True)
class SeenImage:
    """What reading an image showed.

    Attributes:
        place: Of its record in the annotation file.
        finding: What is wrong with it, or None.
        digest: Of the file's bytes, empty if it cannot be read.
    """

    place: int
    finding: Finding | None
    digest: bytes = b""


def outside_fault(annotations: Path, images: ImageSource, record: dict[str, Any]) -> Finding | None:
    """The finding, if a record names no place in the image folder.

    Args:
        annotations: The annotation file.
        images: Those of the folder.
        record: COCO's, of the image.
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
    """The finding, if the (width, height) of an image is not what its record says."""
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


def find_images(
    annotations: CocoAnnotations, images: ImageSource, *, skip_bad: bool = False
) -> Iterator[tuple[int, Finding | None]]:
    """The place of every image in the file, and what is wrong with its image's place, if so.

    Args:
        annotations: The file.
        images: Those that it is of.
        skip_bad: Whether an image that is not there is left out instead of refused.
    """
    for place, record in enumerate(annotations.images):
        fault = outside_fault(annotations.path, images, record)
        if fault is None:
            name = record["file_name"]
            said = images.missing(name)
            if said:
                fault = _unreadable(annotations, images.where(name), record, said, skip_bad)
        yield place, fault


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
    places: Sequence[int],
    *,
    num_workers: int,
    skip_bad: bool = False,
) -> Iterator[SeenImage]:
    """Read the images at some places of the annotation file whole, in worker processes.

    Args:
        annotations: The file.
        images: Those that it is of.
        places: Of images whose images are there, see ``find_images``.
        num_workers: Processes that read; 0 reads in this one.
        skip_bad: Whether an image that cannot be read is left out instead of refused.
    """
    batches = [
        [(0, place) for place in places[start : start + _READ_AT_ONCE]]
        for start in range(0, len(places), _READ_AT_ONCE)
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
    def shard_files(self) -> Shards | None:
        return self._images.files

    def shard(self, place: int) -> int:
        return self._images.shard(self._annotations.images[place]["file_name"])

    def __getitem__(self, key: tuple[int, int]) -> SeenImage:
        _, place = key
        record = self._annotations.images[place]
        name = record["file_name"]
        where = self._images.where(name)
        try:
            content = self._images.content(name)
            size = decode_image(io.BytesIO(content), where).size
        except ShardError:
            raise  # nothing is wrong with the image
        except (BotvisionError, OSError) as error:
            said = str(error).removeprefix(f"{where}: ")
            return SeenImage(
                place, _unreadable(self._annotations, where, record, said, self._skip_bad)
            )
        digest = hashlib.blake2b(content, digest_size=16).digest()
        fault = size_fault(self._annotations.path, record, size, PurePosixPath(name).name)
        return SeenImage(place, fault, digest)
