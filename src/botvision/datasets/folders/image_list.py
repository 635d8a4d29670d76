"""Many images in little memory, which data workers share.

A list of objects is copied into each worker bit by bit, since counting references writes to it;
arrays are not.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from botvision.datasets.folders.splits import ClassImage


class ImageList:
    """The images of a split as a few arrays: about 60 bytes each.

    Args:
        images: Any number; an image in a file of its own is named like the end of its path.
    """

    def __init__(self, images: Sequence[ClassImage]) -> None:
        names = [image.name.encode(errors="surrogateescape") for image in images]
        self._text = np.frombuffer(b"".join(names), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, names)], dtype=np.int64)
        holders: dict[str, int] = {}
        self._holder = np.array(
            [holders.setdefault(_holder(image), len(holders)) for image in images],
            dtype=np.int32,
        )
        self._holders = list(holders)
        # A size of -1 is that of an image in a file of its own.
        spans = [image.span or (0, -1) for image in images]
        self._spans = np.array(spans, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._holder)

    def __getitem__(self, index: int) -> ClassImage:
        place = range(len(self))[index]
        text = self._text[self._ends[place] : self._ends[place + 1]].tobytes()
        name = text.decode(errors="surrogateescape")
        holder = self._holders[self._holder[place]]
        start, size = self._spans[place].tolist()
        if size < 0:
            return ClassImage(name, holder + name)
        return ClassImage(name, holder, (start, size))

    def name(self, index: int) -> str:
        """Path of an image inside the split."""
        return self[index].name

    def content(self, index: int) -> bytes:
        """See ``Images``."""
        return self[index].content()

    def read(self, index: int) -> Image.Image:
        """See ``Images``."""
        return self[index].read()


def _holder(image: ClassImage) -> str:
    """The tar file, or what stands before the name in the path of an image's own file."""
    if image.span is not None:
        return image.file
    assert image.file.endswith(image.name)
    return image.file.removesuffix(image.name)
