"""Annotations in flat arrays, and their records, made when they are asked for.

A file of COCO's size is some 50 million Python objects as JSON; in a data loader each worker comes
to own a copy of them, because counting references writes to their memory. Arrays have neither cost.
"""

import bisect
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from botvision.texts import Texts, starts

Record = dict[str, Any]
Array = NDArray[Any]
Reopening = tuple[Callable[..., "AnnotationArrays"], tuple[Any, ...]]


@dataclass(frozen=True)
class InstanceTable:
    """A row an instance, image by image.

    Attributes:
        image_places: Place of its image in the file, [n].
        category_places: Place of its category among those sorted by id, [n].
        boxes: x, y, width, height in pixels, clipped to the image, [n, 4].
        areas: As the file gives them, NaN where it does not, [n].
        crowds: Which are crowds, [n].
    """

    image_places: Array
    category_places: Array
    boxes: Array
    areas: Array
    crowds: Array


class AnnotationArrays:
    """The arrays of one annotation file.

    Args:
        arrays: By name, as a ``Packer`` makes them; they become read-only.
        reopening: A function and small arguments that give the same object in another process;
            without it the arrays themselves are pickled.

    Attributes:
        arrays: By name.
        description: The rest: ``categories`` (records, sorted by id), ``skipped`` (annotations
            left out, by reason) and ``divisor`` (of the coordinates).
        image_ids: In file order.
        instance_ids: In file order, without those left out.
    """

    def __init__(self, arrays: Mapping[str, Array], reopening: Reopening | None = None) -> None:
        self.arrays = dict(arrays)
        for array in self.arrays.values():
            array.flags.writeable = False
        self._reopening = reopening
        self.description: dict[str, Any] = json.loads(self.arrays["description"].tobytes())
        self.image_ids = Ids(self.arrays, "image_ids")
        self.instance_ids = Ids(self.arrays, "instance_ids")
        self._file_names = Texts(self.arrays, "file_names")
        self._run_lengths = Texts(self.arrays, "run_lengths")

    def __reduce__(self) -> Reopening:
        return self._reopening or (AnnotationArrays, (self.arrays,))

    def image(self, place: int) -> Record:
        """COCO's record of the image at a place in the file."""
        width, height = self.arrays["image_sizes"][place].tolist()
        return {
            "id": self.image_ids[place],
            "file_name": self._file_names[place].decode("utf-8", "surrogatepass"),
            "width": int(width) if width.is_integer() else width,
            "height": int(height) if height.is_integer() else height,
        }

    def image_place(self, image_id: Any) -> int:
        """Place of an image in the file.

        Raises:
            KeyError: If there is none of that id.
        """
        ids, order = self.image_ids, self.arrays["image_order"]
        key = ids.key_of(image_id)
        if key is not None:
            found = bisect.bisect_left(order, key, key=ids.key_at)
            if found < len(order) and ids.key_at(order[found]) == key:
                return int(order[found])
        raise KeyError(image_id)

    def without_images(self, ids: Collection[Any]) -> "AnnotationArrays":
        """The same arrays without some images and without what is in them."""
        gone = {self.image_place(each) for each in ids}
        kept = [place for place in range(len(self.image_ids)) if place not in gone]
        counts = np.diff(self.arrays["instance_starts"])
        of_kept = np.repeat(np.isin(np.arange(len(counts)), kept), counts)
        ids_kept = ordered_ids("image", [self.image_ids[place] for place in kept])
        chosen = {
            # Ids may be texts as a whole and numbers without some; old parts must not stay.
            **{name: a for name, a in self.arrays.items() if not name.startswith("image_ids")},
            **ids_kept,
            "image_sizes": self.arrays["image_sizes"][kept],
            **Texts.pack("file_names", [self._file_names[place] for place in kept]),
            "instance_starts": starts(counts[kept]),
            "instance_order": self.arrays["instance_order"][of_kept],
        }
        return AnnotationArrays(chosen, (_reopen_without, (self, list(ids))))

    def instance_table(self) -> "InstanceTable":
        """What statistics need of all instances, without making their records."""
        rows = self.arrays["instance_order"]
        counts = np.diff(self.arrays["instance_starts"]).astype(np.int64)
        return InstanceTable(
            image_places=np.repeat(np.arange(len(counts)), counts),
            category_places=self.arrays["category_places"][rows],
            boxes=self.arrays["boxes"][rows],
            areas=self.arrays["areas"][rows],
            crowds=self.arrays["crowds"][rows].astype(bool),
        )

    def image_instances(self, place: int) -> list[Record]:
        """COCO's records of the instances of the image at a place in the file."""
        first, end = self.arrays["instance_starts"][place : place + 2].tolist()
        rows = self.arrays["instance_order"][first:end]
        image_id, categories = self.image_ids[place], self.description["categories"]
        records = []
        for row, box, category, crowd, area in zip(
            rows.tolist(),
            self.arrays["boxes"][rows].tolist(),
            self.arrays["category_places"][rows].tolist(),
            self.arrays["crowds"][rows].tolist(),
            self.arrays["areas"][rows].tolist(),
            strict=True,
        ):
            record = {
                "id": self.instance_ids[row],
                "image_id": image_id,
                "category_id": categories[category]["id"],
                "bbox": box,
                "iscrowd": crowd,
                "segmentation": self._segmentation(row),
            }
            if area == area:  # it is NaN where the file gives none
                record["area"] = area
            records.append(record)
        return records

    def _segmentation(self, row: int) -> list[list[float]] | Record:
        if text := self._run_lengths[row]:
            run_lengths: Record = json.loads(text)
            return run_lengths
        first, end = self.arrays["polygon_starts"][row : row + 2].tolist()
        bounds = self.arrays["coordinate_starts"][first : end + 1].tolist()
        stored = self.arrays["coordinates"][bounds[0] : bounds[-1]].astype(np.float64)
        values = (stored / self.description["divisor"]).tolist()
        return [values[i - bounds[0] : j - bounds[0]] for i, j in itertools.pairwise(bounds)]


def _reopen_without(whole: AnnotationArrays, ids: Collection[Any]) -> AnnotationArrays:
    return whole.without_images(ids)


class ImageRecords(Sequence[Record]):
    """COCO's image records in file order, each made anew when it is asked for."""

    def __init__(self, arrays: AnnotationArrays) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays.image_ids)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self._arrays.image(place) for place in places]
        return self._arrays.image(places)


class InstanceRecords(Mapping[Any, list[Record]]):
    """COCO's records of the instances of each image id, made anew when they are asked for."""

    def __init__(self, arrays: AnnotationArrays) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays.image_ids)

    def __iter__(self) -> Iterator[int | str]:
        return iter(self._arrays.image_ids)

    def __getitem__(self, image_id: Any) -> list[Record]:
        return self._arrays.image_instances(self._arrays.image_place(image_id))


class Ids(Sequence[int | str]):
    """Ids as whole numbers of 64 bits, or as JSON where a file has others.

    Args:
        arrays: As ``pack`` makes them, among others.
        name: As ``pack`` was given it.
    """

    def __init__(self, arrays: Mapping[str, Array], name: str) -> None:
        self._texts = Texts(arrays, name) if f"{name}_starts" in arrays else None
        self._numbers = arrays[name]

    def __len__(self) -> int:
        return len(self._numbers if self._texts is None else self._texts)

    def __getitem__(self, index: Any) -> Any:
        key = self.key_at(range(len(self))[index])
        return key if self._texts is None else json.loads(key)

    def key_at(self, index: int) -> Any:
        """What the id at a place is ordered by."""
        return self._numbers[index].item() if self._texts is None else self._texts[index]

    def key_of(self, value: Any) -> Any:
        """What an id would be ordered by, or None if it cannot be one of these."""
        if self._texts is None:
            return value if isinstance(value, int) else None
        return _as_json(value) if isinstance(value, int | str) else None

    @staticmethod
    def pack(name: str, ids: Iterable[int | str]) -> dict[str, Array]:
        """Arrays of ids."""
        ids = list(ids)
        if all(isinstance(each, int) for each in ids):
            try:
                return {name: np.array(ids, np.int64)}
            except OverflowError:
                pass
        return Texts.pack(name, [_as_json(each) for each in ids])


def ordered_ids(name: str, ids: Sequence[int | str]) -> dict[str, Array]:
    """Arrays of ids, and of their places in the order of the ids."""
    packed = Ids.pack(f"{name}_ids", ids)
    keys = list(map(Ids(packed, f"{name}_ids").key_at, range(len(ids))))
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    return {**packed, f"{name}_order": order}


def _as_json(value: int | str) -> bytes:
    return json.dumps(value if isinstance(value, str) else int(value)).encode()
