"""Images with names and classes, wherever they are."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from PIL import Image
from timm.utils import natural_key
from torch import Tensor

from botvision.errors import BotvisionError
from botvision.shards.files import ShardError

_MOST_THREADS = 8


class Images(Protocol):
    """Images that can be read in any order, in little memory, which data workers share."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What an image is called in its split."""
        ...

    def content(self, index: int) -> bytes:
        """Bytes of an image's file.

        Raises:
            BotvisionError: If it cannot be read.
        """
        ...

    def read(self, index: int) -> Image.Image:
        """An image as upright RGB.

        Raises:
            BotvisionError: If it cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class LabeledImages:
    """The images of a split and their classes.

    Attributes:
        source: Where they are, for messages.
        images: One or more.
        labels: Of each the place of its class in ``classes``: int64 [n].
        classes: Names of the classes that have images.
        shards: Of each image the number of its shard, int64 [n]; None: they are in none.
    """

    source: str
    images: Images
    labels: Tensor
    classes: tuple[str, ...]
    shards: Tensor | None = None

    @classmethod
    def of(
        cls,
        source: str,
        images: Images,
        names: Sequence[str],
        classes: Sequence[str],
        shards: Tensor | None = None,
    ) -> Self:
        """Images whose classes are known by name.

        Args:
            source: Where they are, for messages.
            images: One or more.
            names: Of each the name of its class.
            classes: All names in order, those of classes without images among them.
            shards: See above.
        """
        used = set(names)
        classes = tuple(name for name in classes if name in used)
        places = {name: place for place, name in enumerate(classes)}
        labels = torch.tensor([places[name] for name in names])
        return cls(source, images, labels, classes, shards)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes in timm's order: numbers by value, letters whatever their case."""
    # timm leaves the order of "1" and "01" or "cat" and "Cat" to the hashes of the process.
    return tuple(sorted(set(names), key=lambda name: (natural_key(name), name)))


def readable(images: Images) -> tuple[list[int], tuple[str, ...]]:
    """Places of the images that can be read, and what is wrong with each of the others."""

    def fault(index: int) -> str | None:
        try:
            images.read(index)
        except ShardError:
            raise  # nothing is wrong with the image
        except BotvisionError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        faults = [*pool.map(fault, range(len(images)))]
    kept = [index for index, found in enumerate(faults) if found is None]
    return kept, tuple(found for found in faults if found is not None)
