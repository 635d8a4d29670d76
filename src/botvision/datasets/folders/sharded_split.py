"""A split of labeled images that lies in shards."""

import io
import posixpath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from botvision.datasets.coco.store import Texts
from botvision.datasets.folders.labeled_images import LabeledImages, in_order
from botvision.errors import BotvisionError
from botvision.images.decode import decode_image
from botvision.shards.files import ShardFiles
from botvision.shards.index import INDEX, Shard, read_index


class ShardedClassImages:
    """Images of shards in the order of the index, in arrays that data workers share.

    Args:
        folder: Holds the shards.
        shards: From its index.

    Attributes:
        files: The shards.
    """

    def __init__(self, folder: Path, shards: list[Shard]) -> None:
        self._paths = [str(folder / shard.name) for shard in shards]
        self.files = ShardFiles(folder, shards)
        names = [name.encode() for shard in shards for name, _, _ in shard.images]
        self._names = Texts(Texts.pack("names", names), "names")
        places = [
            (number, start, size)
            for number, shard in enumerate(shards)
            for _, start, size in shard.images
        ]
        self._places: Any = np.array(places, np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Path of an image in the split that was sharded."""
        name: str = self._names[index].decode()
        return name

    def content(self, index: int) -> bytes:
        """See ``Images``."""
        number, start, size = self._places[index].tolist()
        return self.files.read(number, start, size)

    def read(self, index: int) -> Image.Image:
        """See ``Images``."""
        where = f"{self._paths[self._places[index, 0]]}: {self.name(index)}"
        return decode_image(io.BytesIO(self.content(index)), where)


def sharded_split(folder: Path) -> LabeledImages:
    """The images of a folder of shards, of the classes that their folders were named after.

    Raises:
        BotvisionError: If the index is damaged, or is not of class folders.
    """
    shards = read_index(folder)
    names = [name for shard in shards for name, _, _ in shard.images]
    classes = [posixpath.basename(posixpath.dirname(name)) for name in names]
    if "" in classes:
        raise BotvisionError(
            f"{folder / INDEX}: image {names[classes.index('')]!r}: expected one in the folder "
            "of a class; shard class folders"
        )
    images = ShardedClassImages(folder, shards)
    numbers = torch.tensor([number for number, s in enumerate(shards) for _ in s.images])
    return LabeledImages.of(str(folder), images, classes, in_order(classes), numbers)
