"""Annotations in flat arrays, and their records, made when they are asked for.

A file of COCO's size is some 50 million Python objects as JSON; in a data loader each worker comes
to own a copy of them, because counting references writes to their memory. Arrays have neither cost.
"""

import copy
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from botvision.texts import Texts

Record = dict[str, Any]
Array = NDArray[Any]
_T = TypeVar("_T")

UNREADABLE = "image that cannot be read"


@dataclass(frozen=True)
class Category:
    """Class of an annotation file; ``id`` is kept wherever results are written."""

    id: int
    name: str


@dataclass
class Tally:
    """Counts of the annotations of a file.

    Attributes:
        records: All annotations of the file.
        skipped: Annotations left out, by reason.
        refused: Annotations that stop a training.
        clipped: Boxes that reached out of their image.
        noted: Annotations and images that are kept although something is odd, by what it is.
    """

    records: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    clipped: int = 0
    noted: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class InstanceTable:
    """Instances of a file, one row per instance, image by image.

    Attributes:
        image_index: Index of the image, int64 [n].
        category_index: Index of the category in ``categories``, int64 [n].
        boxes: x, y, width, height in pixels, clipped to the image, float64 [n, 4].
        areas: Areas as the file gives them, NaN where it does not, float64 [n].
        crowds: Whether the instance is a crowd, bool [n].
    """

    image_index: Array
    category_index: Array
    boxes: Array
    areas: Array
    crowds: Array


class CocoAnnotations:
    """One annotation file, checked.

    Records are made when they are asked for, from arrays that all processes of a machine share;
    changing a record changes nothing here.

    Args:
        path: Annotation file.
        arrays: Arrays by name, see ``pack``.
        kept: Indices of the images in the arrays; None for all.

    Attributes:
        path: Annotation file.
        arrays: Arrays by name.
        categories: Classes, sorted by id, or as ``with_classes`` was given them; model label
            i + 1 is ``categories[i]``.
        skipped: Number of annotations left out, by reason.
        clipped: Number of boxes that reached out of their image.
        tally: Counts of all annotations of the file.
    """

    def __init__(
        self, path: Path, arrays: Mapping[str, Array], kept: Sequence[int] | None = None
    ) -> None:
        self.path, self.arrays = path, arrays
        description = json.loads(arrays["description"].tobytes())
        self.categories = [Category(**each) for each in description.pop("categories")]
        self._labels: Array = np.arange(len(self.categories))
        self.tally = Tally(**description)
        self.tally.skipped, self.tally.noted = (
            Counter(each) for each in (self.tally.skipped, self.tally.noted)
        )
        self.skipped = Counter(self.tally.skipped)
        self.clipped = self.tally.clipped
        self._kept = range(len(arrays["image_sizes"])) if kept is None else kept

    @property
    def images(self) -> "ImageRecords":
        """COCO image records in file order: ``id``, ``file_name``, ``width``, ``height``."""
        return ImageRecords(self)

    @property
    def instances(self) -> "InstanceRecords":
        """Usable annotation records of each image id, crowds included.

        Fields are ``id``, ``image_id``, ``category_id``, ``bbox``, ``iscrowd`` (0 or 1),
        ``segmentation`` (empty if the file gives none) and ``area`` (if the file gives one). Boxes
        are COCO's [x, y, width, height] in pixels, clipped to the image.
        """
        return InstanceRecords(self)

    @property
    def image_sizes(self) -> Array:
        """Width and height of each image in pixels, float64 [n, 2]."""
        sizes: Array = self.arrays["image_sizes"][np.asarray(self._kept, np.int64)]
        return sizes

    @cached_property
    def index_of(self) -> dict[Any, int]:
        """Index of each image id."""
        return {self.image(index)["id"]: index for index in range(len(self._kept))}

    def __len__(self) -> int:
        return len(self._kept)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "index_of"}

    def image(self, index: int) -> Record:
        """Return the record of the image at an index."""
        row = self._kept[index]
        number, name, _ = json.loads(Texts(self.arrays, "images")[row])
        width, height = self.arrays["image_sizes"][row].tolist()
        return {
            "id": number,
            "file_name": name,
            "width": int(width) if width.is_integer() else width,
            "height": int(height) if height.is_integer() else height,
        }

    def image_instances(self, index: int) -> list[Record]:
        """Return the records of the instances of the image at an index."""
        row = self._kept[index]
        rows = slice(*self.arrays["instance_starts"][row : row + 2].tolist())
        texts = Texts(self.arrays, "segmentations")
        image_id, _, numbers = json.loads(Texts(self.arrays, "images")[row])
        records = []
        for number, segmentation, box, category, crowd, area in zip(
            numbers,
            (msgspec.msgpack.decode(texts[each]) for each in range(rows.start, rows.stop)),
            *(
                self.arrays[name][rows].tolist()
                for name in ("boxes", "category_index", "crowds", "areas")
            ),
            strict=True,
        ):
            record = {
                "id": number,
                "image_id": image_id,
                "category_id": self.categories[self._labels[category]].id,
                "bbox": box,
                "iscrowd": int(crowd),
                "segmentation": segmentation,
            }
            if area == area:  # it is NaN where the file gives none
                record["area"] = area
            records.append(record)
        return records

    def instance_table(self) -> InstanceTable:
        """Return the figures of all instances, without making their records."""
        counts: Array = np.diff(self.arrays["instance_starts"]).astype(np.int64)
        index = np.full(len(counts), -1)
        index[np.asarray(self._kept, np.int64)] = np.arange(len(self._kept))
        image_index = np.repeat(index, counts)
        rows = image_index >= 0
        return InstanceTable(
            image_index[rows],
            self._labels[self.arrays["category_index"][rows]],
            self.arrays["boxes"][rows],
            self.arrays["areas"][rows],
            self.arrays["crowds"][rows],
        )

    def outlined(self) -> Array:
        """Return which instances of ``instance_table`` have a segmentation, bool [n]."""
        instances = np.diff(self.arrays["instance_starts"]).astype(np.int64)
        kept = np.zeros(len(instances), bool)
        kept[np.asarray(self._kept, np.int64)] = True
        # An empty list is a single byte.
        outlined: Array = np.diff(self.arrays["segmentations_starts"].astype(np.int64)) > 1
        return outlined[np.repeat(kept, instances)]

    def with_classes(self, categories: Sequence[Category]) -> "CocoAnnotations":
        """Return the same with the categories in another order.

        Args:
            categories: All categories of the file, and perhaps others, in the order of the model's
                labels; see ``check.classes.matched_classes``.
        """
        place = {each.id: index for index, each in enumerate(categories)}
        found = copy.copy(self)
        found._labels = np.array([place[each.id] for each in self.categories], np.int64)[
            self._labels
        ]
        found.categories = list(categories)
        return found

    def without_images(self, ids: Collection[Any]) -> "CocoAnnotations":
        """Return the same without some images, whose annotations count as skipped."""
        if not ids:
            return self
        gone = [self.index_of[each] for each in ids]
        kept = np.delete(np.asarray(self._kept, np.int64), gone).tolist()
        found = copy.copy(self)
        found._kept = kept
        lost = sum(len(self.image_instances(index)) for index in set(gone))
        found.skipped = self.skipped + Counter({UNREADABLE: lost})
        return found


class ImageRecords(Sequence[Record]):
    """Image records in file order."""

    def __init__(self, annotations: CocoAnnotations) -> None:
        self._annotations = annotations

    def __len__(self) -> int:
        return len(self._annotations)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        found = range(len(self))[index]
        if isinstance(found, range):
            return [self._annotations.image(each) for each in found]
        return self._annotations.image(found)


class InstanceRecords(Mapping[Any, list[Record]]):
    """Records of the instances of each image id."""

    def __init__(self, annotations: CocoAnnotations) -> None:
        self._annotations = annotations

    def __len__(self) -> int:
        return len(self._annotations)

    def __iter__(self) -> Iterator[int | str]:
        return iter(self._annotations.index_of)

    def __getitem__(self, image_id: Any) -> list[Record]:
        return self._annotations.image_instances(self._annotations.index_of[image_id])
