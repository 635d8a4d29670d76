"""A split of labeled images as a torch data set."""

import os
import posixpath
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from botvision.datasets.folders.hub import HUB_PREFIX, hub_split
from botvision.datasets.folders.splits import LabeledImages, find_split, read_split
from botvision.errors import BotvisionError, OutOfMemoryError
from botvision.images.find import left_out_note
from botvision.seeds import all_seeded, derived_seed
from botvision.shards.mirror import open_data_folder
from botvision.shards.prefetch import shard_lengths
from botvision.shards.read import ShardError

Transform = Callable[[Image.Image], Tensor]
Key = tuple[int, int]
Item = tuple[Tensor, int, Key]

_MAX_THREADS = 8
_NAMED = 8  # classes in a line


class ClassImages(Dataset[Item]):
    """Images with labels, augmented reproducibly.

    The key of an item is ``(epoch, index)``; the random numbers of its augmentation depend on the
    seed, the epoch and the index alone, whatever worker or process reads it.

    Items are (image, label, key): the transformed image, the index of its class in ``classes``, and
    the key.

    Args:
        folder: Data set: a folder, an address, or "hfds/" and a data set of the Hugging Face Hub.
        split: Name of the split, such as "train" or "val".
        classes: Names of the training data's classes, if this is another split; None takes those
            of this split.
        origin: Name of the data that ``classes`` are from, for messages.
        seed: Seed of the augmentation.
        skip_bad: Whether to read all images first and leave out those that cannot be read.
        size_fault: Function that returns what is wrong with an image of this width and height, or
            ""; such an image counts as one that cannot be read.

    Attributes:
        source: Path or address of the split, for messages.
        skipped: Message about each image that was left out.
        left_out: A line on the files of class folders that are no images; "" if there are none.
        classes: Names of the classes, in the order of the labels.
        labels: Labels of the images, int64 [n].
        shard_files: Shards of the images; None if they are not in shards.
        shard_lengths: Number of items of each shard, in the order of the items; empty if the
            images are not in shards.
        transform: Transform of the images; to be set before the first item is read.

    Raises:
        BotvisionError: If the data is missing, none of the images of a class can be read, or there
            is a class that ``classes`` lacks.
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
        size_fault: Callable[[tuple[int, int]], str] | None = None,
    ) -> None:
        found = open_split(folder, split)
        self.source, own = found.source, found.classes
        self.left_out, self._size_fault = left_out_note(found.left_out), size_fault
        faults = _faults(found, size_fault) if skip_bad else [""] * len(found.names)
        self.skipped = tuple(fault for fault in faults if fault)
        kept = torch.tensor([index for index, fault in enumerate(faults) if not fault])
        if not len(kept):
            raise BotvisionError(f"{self.source}: none of the images can be read")
        lost = set(range(len(own))) - set(found.labels[kept].tolist())
        if lost and classes is None:
            raise BotvisionError(
                f"{self.source}: class {own[min(lost)]!r}: none of its images can be read; "
                "replace them, or remove the class"
            )
        self.classes = own if classes is None else tuple(classes)
        self._seed = seed
        index = {name: label for label, name in enumerate(self.classes)}
        unknown = [name for name in own if name not in index]
        if unknown:
            expected = f"expected the {len(index)} classes of {origin}"
            innermost = {posixpath.basename(posixpath.dirname(name)) for name in found.names}
            if found.shards is None and innermost <= index.keys():
                raise BotvisionError(
                    f"{self.source}: class {unknown[0]!r}: {expected}, which are the innermost "
                    "folders here, as earlier versions took them; now the folder below the split "
                    f"is the class: move {min(innermost)!r} and the others directly into "
                    f"{self.source}, or train anew"
                )
            raise BotvisionError(
                f"{self.source}: class {unknown[0]!r}: {expected}, got {len(own)} with "
                f"{len(unknown)} others; remove them, or train with them"
            )
        self.labels = torch.tensor([index[name] for name in own])[found.labels[kept]]
        self._images, self._names, self._kept = found.images, found.names, kept
        self.shard_files = found.images.files
        self._shards = None if found.shards is None else found.shards[kept]
        self.shard_lengths = () if self._shards is None else shard_lengths(self._shards)

    def shard(self, index: int) -> int:
        """Return the number of the shard that holds an item; 0 without shards."""
        return 0 if self._shards is None else int(self._shards[index])

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        image = self.image(index)
        if self._size_fault is not None and (said := self._size_fault(image.size)):
            raise BotvisionError(f"{self._images.where(self.name(index))}: {said}")
        with all_seeded(derived_seed(self._seed, epoch, index)):
            return self.transform(image), int(self.labels[index]), key

    def image(self, index: int) -> Image.Image:
        """Return an image of the split as RGB."""
        return self._images.read(self.name(index))

    def name(self, index: int) -> str:
        """Return the name of an image in its split, usually its path."""
        return self._names[int(self._kept[index])]

    def summary(self) -> str:
        """Return a line about the split."""
        text = f"{self.source}: {len(self)} images of {len(self.labels.unique())} classes"
        if self.skipped:
            text += f"; {len(self.skipped)} skipped, the first: {self.skipped[0]}"
        return text + (f"; {self.left_out}" if self.left_out else "")

    def class_line(self) -> str:
        """Return the names of the first classes, and how many more there are."""
        names = ", ".join(" ".join(name.split()) for name in self.classes[:_NAMED])
        more = len(self.classes) - _NAMED
        return f"classes: {names}" + (f" and {more:,} more" if more > 0 else "")


def open_split(folder: str, split: str) -> LabeledImages:
    """Return the images of a split.

    Args:
        folder: Data set: a folder, see ``find_split``, an address, see ``open_data_folder``, or a
            data set of the Hub, see ``hub_split``.
        split: Name of the split.

    Raises:
        BotvisionError: If the data is missing or damaged.
    """
    if folder.startswith(HUB_PREFIX):
        return hub_split(folder, split)
    return read_split(find_split(str(open_data_folder(folder)), split))


def _faults(found: LabeledImages, size_fault: Callable[[tuple[int, int]], str] | None) -> list[str]:
    """Message about each image that cannot be read, "" for the others."""

    def fault(name: str) -> str:
        try:
            image = found.images.read(name)
            if size_fault is not None and (said := size_fault(image.size)):
                return f"{found.images.where(name)}: {said}"
        except (ShardError, OutOfMemoryError):
            raise  # the image itself may be sound
        except BotvisionError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        return [*pool.map(fault, found.names)]
