"""A split of labeled images as a torch data set."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from botvision.datasets.folders.generators import all_seeded
from botvision.datasets.folders.hub import HUB_PREFIX, hub_split
from botvision.datasets.folders.image_list import ImageList
from botvision.datasets.folders.labeled_images import LabeledImages, in_order, readable
from botvision.datasets.folders.sharded_split import ShardedClassImages, sharded_split
from botvision.datasets.folders.splits import find_images, find_split
from botvision.errors import BotvisionError
from botvision.seeds import derived_seed
from botvision.shards.files import ShardFiles
from botvision.shards.index import is_sharded
from botvision.shards.mirror import open_data_folder
from botvision.shards.prefetch import shard_lengths

Transform = Callable[[Image.Image], Tensor]
Key = tuple[int, int]
Item = tuple[Tensor, int, Key]


class ClassImages(Dataset[Item]):
    """Images with labels, augmented reproducibly.

    An item is asked for by ``(epoch, index)``; the random numbers of its augmentation depend on
    the seed, the epoch and the index alone, whatever worker or process reads it.

    Items are (image, label, key): what the transform makes of the image, the place of its class in
    ``classes``, and what it was asked for by.

    Args:
        folder: See ``open_split``.
        split: "train" or "val", or another name.
        classes: Of the training data, if this is another split; None: those of this split.
        origin: What the classes are those of, for the error.
        seed: Of the augmentation.
        skip_bad: Read all images first and leave out those that cannot be read.

    Attributes:
        source: Where the split is, for messages.
        skipped: What was wrong with each image that was left out.
        classes: Names of the classes, in the order of the labels.
        labels: int64 [n].
        shard_lengths: Number of items of each shard, one after the other; empty if the images
            are not in shards.
        transform: Applied to each image; to be set before the first item is asked for.

    Raises:
        BotvisionError: If the data is missing or not as it should be.
    """

    transform: Transform

    def __init__(
        self,
        folder: str,
        split: str,
        *,
        classes: Sequence[str] | None = None,
        origin: str = "the training data",
        seed: int = 0,
        skip_bad: bool = False,
    ) -> None:
        found = open_split(folder, split)
        self.source, own = found.source, found.classes
        kept = torch.arange(len(found.labels))
        self.skipped: tuple[str, ...] = ()
        if skip_bad:
            good, self.skipped = readable(found.images)
            if not good:
                raise BotvisionError(f"{self.source}: none of the images can be read")
            kept = torch.tensor(good)
            lost = set(range(len(own))) - set(found.labels[kept].tolist())
            if lost and classes is None:
                raise BotvisionError(
                    f"{self.source}: class {own[min(lost)]!r}: none of its images can be read; "
                    "replace them, or remove the class"
                )
        self.classes = own if classes is None else tuple(classes)
        self._seed = seed
        places = {name: place for place, name in enumerate(self.classes)}
        unknown = [name for name in own if name not in places]
        if unknown:
            raise BotvisionError(
                f"{self.source}: class {unknown[0]!r}: expected the {len(places)} classes of "
                f"{origin}, got {len(own)} with {len(unknown)} others; remove them, or train with "
                "them"
            )
        self.labels = torch.tensor([places[name] for name in own])[found.labels[kept]]
        self._images, self._kept = found.images, kept
        self.shard_lengths: tuple[int, ...] = ()
        self._shards = None if found.shards is None else found.shards[kept]
        if self._shards is not None:
            self.shard_lengths = shard_lengths(self._shards)

    @property
    def shard_files(self) -> ShardFiles | None:
        """The shards that the images are in; None: they are in none."""
        return self._images.files if isinstance(self._images, ShardedClassImages) else None

    def shard(self, index: int) -> int:
        """Number of the shard that the image of an item is in; 0 if it is in none."""
        return 0 if self._shards is None else int(self._shards[index])

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        image = self._images.read(int(self._kept[index]))
        with all_seeded(derived_seed(self._seed, epoch, index)):
            return self.transform(image), int(self.labels[index]), key

    def name(self, index: int) -> str:
        """What an image is called in its split, as its path."""
        return self._images.name(int(self._kept[index]))

    def summary(self) -> str:
        """The split in a line."""
        text = f"{self.source}: {len(self)} images of {len(self.labels.unique())} classes"
        if self.skipped:
            text += f"; {len(self.skipped)} skipped, the first: {self.skipped[0]}"
        return text


def open_split(folder: str, split: str) -> LabeledImages:
    """The images of a split, see ``find_split``, ``open_data_folder`` and ``hub_split``.

    Raises:
        BotvisionError: If the data is missing or not as it should be.
    """
    if folder.startswith(HUB_PREFIX):
        return hub_split(folder, split)
    path = find_split(str(open_data_folder(folder)), split)
    if is_sharded(path):
        return sharded_split(path)
    images = find_images(path)
    names = [image.class_name for image in images]
    return LabeledImages.of(str(path), ImageList(images), names, in_order(names))
