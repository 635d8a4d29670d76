"""COCO-format instance annotations: finding a split, its records, the masks of instances."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from botvision.datasets.coco.cache import cached
from botvision.datasets.coco.checks import check_annotations, run_length_fault
from botvision.datasets.coco.polygons import cut_to_surroundings
from botvision.datasets.coco.reading import read_sound
from botvision.datasets.coco.store import AnnotationArrays, ImageRecords, InstanceRecords
from botvision.errors import BotvisionError

UNREADABLE = "image that cannot be read"


@dataclass(frozen=True)
class Category:
    """A class as the annotation file names it; ``id`` is kept wherever results are written."""

    id: int
    name: str


@dataclass
class CocoAnnotations:
    """One annotation file, checked.

    Records are made when they are asked for, out of arrays that all processes of a machine share;
    changing one changes nothing here.

    Attributes:
        path: The file.
        images: COCO image records, in file order: ``id``, ``file_name``, ``width``, ``height``.
        categories: Classes, sorted by id; model label i + 1 is ``categories[i]``.
        instances: Usable annotation records of each image id, crowds included: ``id``,
            ``image_id``, ``category_id``, ``bbox``, ``iscrowd`` (0 or 1), ``segmentation`` (empty
            if the file gives none), ``area`` (if the file gives one). Boxes are COCO's
            [x, y, width, height] in pixels, clipped to the image.
        skipped: Number of annotations left out, by reason.
        clipped: Number of boxes that reached out of their image.
        arrays: What the records are made of.
    """

    path: Path
    images: Sequence[dict[str, Any]]
    categories: list[Category]
    instances: Mapping[Any, list[dict[str, Any]]]
    skipped: Counter[str]
    clipped: int
    arrays: AnnotationArrays = field(repr=False)

    def without_images(self, ids: Collection[Any]) -> "CocoAnnotations":
        """The same without some images, whose annotations count as skipped."""
        if not ids:
            return self
        lost = sum(len(self.instances[image]) for image in ids)
        found = annotations_of(self.path, self.arrays.without_images(ids))
        return replace(found, skipped=found.skipped + Counter({UNREADABLE: lost}))


def read_annotations(path: Path) -> CocoAnnotations:
    """Read and check a COCO instances file.

    What cannot be trained on but does no harm (boxes without area, unknown images, polygons of
    fewer than three points) is left out and counted; what shows that the file is not what it
    should be is an error. What a large file holds is kept in the cache folder, see
    ``annotation_cache``, and opened from there the next time.

    Raises:
        BotvisionError: Naming the file, the record's id, the field and the value.
    """
    return annotations_of(path, cached(path, lambda: read_sound(path) or check_annotations(path)))


def annotations_of(path: Path, arrays: AnnotationArrays) -> CocoAnnotations:
    """The annotations that arrays hold, of the file that they come from."""
    return CocoAnnotations(
        path=path,
        images=ImageRecords(arrays),
        categories=[Category(**record) for record in arrays.description["categories"]],
        instances=InstanceRecords(arrays),
        skipped=Counter(arrays.description["skipped"]),
        clipped=arrays.description["clipped"],
        arrays=arrays,
    )


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
        if fault := run_length_fault(segmentation, height, width):
            raise BotvisionError(f"annotation {annotation['id']}: segmentation: {fault}")
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects([segmentation], height, width)[0]
        rle = segmentation
    else:
        near = cut_to_surroundings(segmentation, height, width)
        rle = coco_mask.merge(coco_mask.frPyObjects(near, height, width))
    mask: NDArray[np.uint8] = coco_mask.decode(rle)
    return mask


def box_polygons(box: Sequence[float]) -> list[list[float]]:
    """A box [x, y, width, height] as a COCO segmentation, for annotations without one."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]
