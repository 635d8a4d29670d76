"""Checked annotation records into the arrays that keep them."""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from botvision.datasets.coco.store import AnnotationArrays, Array, Ids, ordered_ids
from botvision.texts import Texts, starts

# Coordinates that have at most two decimals, as COCO's own, are kept as whole hundredths.
_HUNDREDTHS = 100


class Image(msgspec.Struct, gc=False):
    """What is used of a COCO image record."""

    id: int
    file_name: str
    width: int | float
    height: int | float


class RunLengths(msgspec.Struct, gc=False):
    """A segmentation of run lengths, compressed (text) or not."""

    size: list[int]
    counts: list[int] | str


class Instance(msgspec.Struct, gc=False):
    """What is used of a COCO annotation record."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    segmentation: list[list[float]] | RunLengths | None = None
    iscrowd: int = 0
    area: float | None = None


@dataclass
class Tally:
    """What became of the annotations of a file that are not kept as they are.

    Attributes:
        records: All annotations of the file.
        skipped: Left out, by reason.
        refused: Those that training stops at.
        clipped: Kept, but for the part of the box that was outside the image.
    """

    records: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    clipped: int = 0


class Packer:
    """Takes checked instances, some at a time, and makes arrays of them.

    Args:
        images: In file order.
        categories: Records with id and name, sorted by id.
    """

    def __init__(self, images: Sequence[Image], categories: Sequence[Mapping[str, Any]]) -> None:
        self._images = images
        self._categories = categories
        self._ids: list[int | str] = []
        self._run_lengths: list[bytes] = []
        self._chunks: list[dict[str, Array]] = []
        empty = np.zeros(0, np.int64)
        self.add([], image_places=empty, category_places=empty, boxes=np.zeros((0, 4)))

    def add(
        self,
        instances: Sequence[Instance],
        *,
        image_places: Array,
        category_places: Array,
        boxes: Array,
    ) -> None:
        """Append instances.

        Args:
            instances: In file order.
            image_places: Of the image of each in the file.
            category_places: Of the category of each.
            boxes: Float64 [n, 4], clipped; they stand for those of the records.
        """
        polygons = [
            each.segmentation if isinstance(each.segmentation, list) else [] for each in instances
        ]
        flat = list(itertools.chain.from_iterable(polygons))
        counts = np.array(list(map(len, flat)), np.uint32)
        numbers = np.fromiter(
            itertools.chain.from_iterable(flat), np.float64, count=int(counts.sum())
        )
        areas = [np.nan if each.area is None else each.area for each in instances]
        self._ids.extend(each.id for each in instances)
        self._run_lengths.extend(
            msgspec.json.encode(each.segmentation)
            if isinstance(each.segmentation, RunLengths)
            else b""
            for each in instances
        )
        self._chunks.append(
            {
                "image_places": image_places,
                "category_places": category_places.astype(np.uint32),
                "boxes": boxes,
                "crowds": np.array([bool(each.iscrowd) for each in instances], np.uint8),
                "areas": np.array(areas, np.float64),
                "polygon_counts": np.array(list(map(len, polygons)), np.uint32),
                "coordinate_counts": counts,
                "coordinates": _shortened(numbers),
            }
        )

    def arrays(self, tally: Tally) -> AnnotationArrays:
        """All that was added.

        Args:
            tally: Of the file's annotations; it becomes part of the description.
        """
        divisor = self._join_coordinates()
        joined = {
            name: np.concatenate([chunk.pop(name) for chunk in self._chunks])
            for name in list(self._chunks[0])
        }
        image_places = joined.pop("image_places")
        description = {
            "categories": [{"id": each["id"], "name": each["name"]} for each in self._categories],
            **vars(tally),
            "divisor": divisor,
        }
        names = [image.file_name.encode("utf-8", "surrogatepass") for image in self._images]
        sizes = [(image.width, image.height) for image in self._images]
        return AnnotationArrays(
            {
                "description": np.frombuffer(json.dumps(description).encode(), np.uint8).copy(),
                **ordered_ids("image", [image.id for image in self._images]),
                "image_sizes": np.array(sizes, np.float64).reshape(-1, 2),
                **Texts.pack("file_names", names),
                "instance_starts": starts(np.bincount(image_places, minlength=len(names))),
                # Of an image, in file order.
                "instance_order": np.argsort(image_places, kind="stable").astype(np.uint32),
                **Ids.pack("instance_ids", self._ids),
                **Texts.pack("run_lengths", self._run_lengths),
                "polygon_starts": starts(joined.pop("polygon_counts")),
                "coordinate_starts": starts(joined.pop("coordinate_counts")),
                **joined,
            }
        )

    def _join_coordinates(self) -> int:
        """Bring the coordinates of all chunks to one form; their divisor is returned."""
        kinds = {chunk["coordinates"].dtype for chunk in self._chunks if chunk["coordinates"].size}
        if any(kind.kind == "f" for kind in kinds):
            for chunk in self._chunks:
                if chunk["coordinates"].dtype.kind != "f":
                    chunk["coordinates"] = chunk["coordinates"].astype(np.float64) / _HUNDREDTHS
            return 1
        return _HUNDREDTHS


def _shortened(values: Array) -> Array:
    """Float64 values as whole hundredths, if they are no more than that, else as they are."""
    with np.errstate(over="ignore"):
        hundredths = np.round(values * _HUNDREDTHS)
    # The quotient that is nearest to 1234 / 100 is what every reader makes of "12.34".
    if not np.array_equal(hundredths / _HUNDREDTHS, values):
        return values
    least, most = hundredths.min(initial=0), hundredths.max(initial=0)
    for kind in (np.uint16, np.int32):
        if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max:
            return hundredths.astype(kind)
    return values
