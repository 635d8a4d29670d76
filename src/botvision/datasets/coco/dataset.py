"""A COCO folder as a torch data set of images and instance targets."""

import copy
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from botvision.datasets.check.image_checks import outside_fault, size_fault
from botvision.datasets.coco.annotations import (
    Category,
    CocoAnnotations,
    instance_mask,
    read_annotations,
)
from botvision.datasets.coco.copy_paste import paste_instances, random_subset
from botvision.datasets.layouts import find_split
from botvision.errors import BotvisionError
from botvision.images.sources import ImageSource, Shards
from botvision.seeds import derived_seed
from botvision.shards.prefetch import shard_lengths
from botvision.shards.read import open_images

Target = dict[str, Any]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


class CocoInstances(Dataset[tuple[Tensor, Target]]):
    """Images with boxes, labels and masks, augmented reproducibly.

    An item is asked for by ``(epoch, index)``; the random numbers of its augmentation depend on
    the seed, the epoch and the index alone, whatever worker or process reads it.

    Items are (image, target): a uint8 image [3, H, W], or what the transform makes of it, and

    - ``boxes``: float32 [n, 4], x1 y1 x2 y2 in pixels,
    - ``labels``: int64 [n], 1 + the place of the category in ``categories``,
    - ``masks``: uint8 [n, H, W],
    - ``image_id``: COCO's image id.

    Crowds are left out of the targets.

    Args:
        folder: COCO folder, see ``find_split``.
        split: "train" or "val".
        transform: Applied to (image, target) of tv_tensors.
        masks: False leaves the masks out, for box detectors.
        seed: Of the augmentation.

    Attributes:
        transform: As given; may be set later.
        copy_paste: Probability that instances of another image, drawn at random (of shards, from
            the same one) and transformed in its own right, are pasted onto an item, see
            ``paste_instances``; 0 at first. If it is not 0, boxes are those of masks, whether or
            not items have masks, and an instance of which the file gives only the box is that
            box.
        annotations: What the annotation file says.
        images: Where the images come from.
        shard_lengths: Number of items of each shard, one after the other; empty if the images
            are not in shards, or the annotation file has another order than they.

    Raises:
        BotvisionError: If the folder, the annotations or an image are not as they should be.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        *,
        transform: Transform | None = None,
        masks: bool = True,
        seed: int = 0,
    ) -> None:
        annotations_path, image_folder = find_split(folder, split)
        self.images: ImageSource = open_images(image_folder)
        self.annotations: CocoAnnotations = read_annotations(annotations_path)
        if not self.annotations.images:
            raise BotvisionError(f"{annotations_path}: images: expected at least one, got none")
        self.transform = transform
        self.copy_paste = 0.0
        self._masks = masks
        self._seed = seed
        self._find_shards()
        self._labels = {c.id: i + 1 for i, c in enumerate(self.annotations.categories)}

    @property
    def categories(self) -> list[Category]:
        """Classes in the order of the model's labels, which start at 1."""
        return self.annotations.categories

    @property
    def shard_files(self) -> Shards | None:
        """The shards that the images are in; None: they are in none."""
        return self.images.files

    def shard(self, index: int) -> int:
        """Number of the shard that the image of an item is in; 0 if it is in none."""
        return 0 if self._shards is None else int(self._shards[index])

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed the accelerators as well, which nobody restores.
            torch.default_generator.manual_seed(derived_seed(self._seed, epoch, index))
            image, target = self._transformed(index)
            if torch.rand(()) < self.copy_paste:
                image, target = self._with_pasted(index, (image, target))
        if not self._masks:
            target.pop("masks", None)
        return image, target

    def without_masks(self) -> "CocoInstances":
        """Return the same items without masks, which take n x H x W bytes each."""
        boxes_only = copy.copy(self)
        boxes_only._masks = False
        return boxes_only

    def leave_out(self, image_ids: Collection[int | str]) -> None:
        """Go on without some images.

        Raises:
            BotvisionError: If none is left.
        """
        self.annotations = self.annotations.without_images(image_ids)
        if not self.annotations.images:
            raise BotvisionError(f"{self.annotations.path}: no image can be read")
        self._find_shards()

    def _transformed(self, index: int) -> tuple[Tensor, Target]:
        item = self._read(index)
        return item if self.transform is None else self.transform(*item)

    def _with_pasted(self, index: int, item: tuple[Tensor, Target]) -> tuple[Tensor, Target]:
        """The item with instances of another, if there is another and it shows any."""
        partners = self._partners(index)
        if len(partners) == 1:
            return item
        place = partners.index(index) + int(torch.randint(1, len(partners), ()))
        other = partners[place % len(partners)]
        source = self._transformed(other)
        count = len(source[1]["labels"])
        return paste_instances(item, source, random_subset(count)) if count else item

    def _read(self, index: int) -> tuple[Tensor, Target]:
        record = self.annotations.images[index]
        image = v2.functional.pil_to_tensor(self._read_image(record))
        height, width = image.shape[1:]
        instances = [
            instance
            for instance in self.annotations.instances[record["id"]]
            if not instance.get("iscrowd")
        ]
        boxes = torch.tensor([i["bbox"] for i in instances], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
            "labels": torch.tensor(
                [self._labels[i["category_id"]] for i in instances], dtype=torch.int64
            ),
            "image_id": record["id"],
        }
        if self._masks or self.copy_paste:
            masks = [instance_mask(i, height, width) for i in instances]
            stacked = np.stack(masks) if masks else np.zeros((0, height, width), np.uint8)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(stacked))
        return tv_tensors.Image(image), target

    def _read_image(self, record: dict[str, Any]) -> Image.Image:
        file, name = self.annotations.path, record["file_name"]
        fault = outside_fault(file, self.images, record)
        if fault is None:
            image = self.images.read(name)
            fault = size_fault(file, record, image.size, PurePosixPath(name).name)
        if fault is not None:
            raise BotvisionError(fault.message)
        return image

    def _find_shards(self) -> None:
        self._shards: Tensor | None = None
        self.shard_lengths: tuple[int, ...] = ()
        if self.images.files is None:
            return
        names = (record["file_name"] for record in self.annotations.images)
        self._shards = torch.tensor([self.images.shard(name) for name in names])
        self.shard_lengths = shard_lengths(self._shards)

    def _partners(self, index: int) -> range:
        """The items that one may be pasted from: of shards, those of the same one."""
        end = 0
        for length in self.shard_lengths:
            end += length
            if index < end:
                return range(end - length, end)
        return range(len(self))
