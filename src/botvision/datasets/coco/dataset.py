"""COCO folders as torch data sets of images and instance targets."""

import copy
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from botvision.datasets.check.classes import matched_classes
from botvision.datasets.check.images import outside_fault, size_fault
from botvision.datasets.coco.augmentation import LateMaskCompose
from botvision.datasets.coco.copy_paste import paste_instances, random_subset
from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.late_masks import LateMasks
from botvision.datasets.coco.store import Category, CocoAnnotations
from botvision.datasets.layouts import find_coco_split
from botvision.errors import BotvisionError
from botvision.seeds import derived_seed
from botvision.shards.prefetch import shard_lengths
from botvision.shards.read import ImageSource, ShardFiles, open_images

_LATE = 64 * 2**20  # bytes of an item's masks from which they are drawn after the transforms
Target = dict[str, Any]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


class CocoInstances(Dataset[tuple[Tensor, Target]]):
    """Images with boxes, labels and masks, augmented reproducibly.

    Keys of items are ``(epoch, index)``; the random numbers of an item's augmentation depend on
    the seed, the epoch and the index alone, whatever worker or process reads it.

    Items are (image, target): a uint8 image [3, H, W], or what the transform makes of it, and

    - ``boxes``: float32 [n, 4], x1 y1 x2 y2 in pixels,
    - ``labels``: int64 [n], 1 + the index of the category in ``categories``,
    - ``masks``: uint8 [n, H, W],
    - ``image_id``: COCO's image id.

    Crowds are left out of the targets.

    Args:
        folder: COCO folder, see ``find_coco_split``.
        split: "train" or "val".
        transform: Transform of (image, target) of tv_tensors.
        masks: Whether targets have masks; False for box detectors.
        seed: Random seed of the augmentation.

    Attributes:
        transform: Transform as given; may be set later.
        copy_paste: Probability that instances of another image are pasted onto an item, see
            ``paste_instances``; 0 at first. The other image is drawn at random (within the same
            shard, if there are shards) and transformed by itself. If it is not 0, boxes are those
            of the masks even where items have no masks, and a box without a segmentation is its
            own mask.
        annotations: Annotations of the split.
        images: Source of the images.
        shard_lengths: Number of items of each shard in order; empty if the images are not in
            shards, or are in another order than the annotation file.

    Raises:
        BotvisionError: If the folder, the annotations or an image are faulty.
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
        found = find_coco_split(folder, split)
        self.images: ImageSource = open_images(found.images)
        self.annotations: CocoAnnotations = read_annotations(found.annotations)
        if not self.annotations.images:
            raise BotvisionError(f"{found.annotations}: images: expected at least one, got none")
        self.transform = transform
        self.copy_paste = 0.0
        self._masks = masks
        self._seed = seed
        self._find_shards()

    @property
    def categories(self) -> list[Category]:
        """Classes in the order of the model's labels, which start at 1."""
        return self.annotations.categories

    @property
    def shard_files(self) -> ShardFiles | None:
        """Shards of the images; None if the images are not in shards."""
        return self.images.files

    def shard(self, index: int) -> int:
        """Return the number of the shard that holds the image of an item; 0 without shards."""
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

    def take_classes(self, classes: Sequence[Category], whose: str) -> None:
        """Give classes the labels of a model, whatever their ids in this file are.

        Args:
            classes: Classes of the model, in the order of its labels.
            whose: Whose classes these are, for messages.

        Raises:
            BotvisionError: If the file has a class that the model does not have.
        """
        own = self.annotations
        matched = matched_classes(own.path, own.categories, classes, whose)
        self.annotations = own.with_classes(matched)

    def leave_out(self, image_ids: Collection[int | str]) -> None:
        """Remove some images from the data set.

        Raises:
            BotvisionError: If none is left.
        """
        self.annotations = self.annotations.without_images(image_ids)
        if not self.annotations.images:
            raise BotvisionError(f"{self.annotations.path}: no image can be read")
        self._find_shards()

    @property
    def _draws_late(self) -> bool:
        return isinstance(self.transform, LateMaskCompose)

    def _transformed(self, index: int) -> tuple[Tensor, Target]:
        item = self._read(index)
        return item if self.transform is None else self.transform(*item)

    def _with_pasted(self, index: int, item: tuple[Tensor, Target]) -> tuple[Tensor, Target]:
        """Paste instances of another item, if there is another and it shows any."""
        partners = self._partners(index)
        if len(partners) == 1:
            return item
        position = partners.index(index) + int(torch.randint(1, len(partners), ()))
        other = partners[position % len(partners)]
        source = self._transformed(other)
        count = len(source[1]["labels"])
        return paste_instances(item, source, random_subset(count)) if count else item

    def _read(self, index: int) -> tuple[Tensor, Target]:
        record = self.annotations.images[index]
        image = v2.functional.pil_to_tensor(self._read_image(record))
        height, width = image.shape[1:]
        instances = [
            instance
            for instance in self.annotations.image_instances(index)
            if not instance.get("iscrowd")
        ]
        labels = {each.id: index + 1 for index, each in enumerate(self.categories)}
        boxes = torch.tensor([i["bbox"] for i in instances], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
            "labels": torch.tensor(
                [labels[i["category_id"]] for i in instances], dtype=torch.int64
            ),
            "image_id": record["id"],
        }
        if self._masks or self.copy_paste:
            masks = LateMasks.of(instances, height, width)
            late = len(instances) * height * width > _LATE and self._draws_late
            target["masks"] = masks if late else masks.draw()
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
        """Return the items to paste from: all, or those of the same shard."""
        end = 0
        for length in self.shard_lengths:
            end += length
            if index < end:
                return range(end - length, end)
        return range(len(self))
