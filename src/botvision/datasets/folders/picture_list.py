"""Many pictures in little memory, which data workers share.

A list of objects is copied into each worker bit by bit, since counting references writes to it;
arrays are not.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from botvision.datasets.folders.splits import ClassPicture


class PictureList:
    """The pictures of a split as a few arrays: about 60 bytes each.

    Args:
        pictures: Any number; a picture in a file of its own is named like the end of its path.
    """

    def __init__(self, pictures: Sequence[ClassPicture]) -> None:
        names = [picture.name.encode(errors="surrogateescape") for picture in pictures]
        self._text = np.frombuffer(b"".join(names), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, names)], dtype=np.int64)
        holders: dict[str, int] = {}
        self._holder = np.array(
            [holders.setdefault(_holder(picture), len(holders)) for picture in pictures],
            dtype=np.int32,
        )
        self._holders = list(holders)
        # A size of -1 is that of a picture in a file of its own.
        spans = [picture.span or (0, -1) for picture in pictures]
        self._spans = np.array(spans, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._holder)

    def __getitem__(self, index: int) -> ClassPicture:
        place = range(len(self))[index]
        text = self._text[self._ends[place] : self._ends[place + 1]].tobytes()
        name = text.decode(errors="surrogateescape")
        holder = self._holders[self._holder[place]]
        start, size = self._spans[place].tolist()
        if size < 0:
            return ClassPicture(name, holder + name)
        return ClassPicture(name, holder, (start, size))

    def name(self, index: int) -> str:
        """Path of a picture inside the split."""
        return self[index].name

    def content(self, index: int) -> bytes:
        """See ``Pictures``."""
        return self[index].content()

    def read(self, index: int) -> Image.Image:
        """See ``Pictures``."""
        return self[index].read()


def _holder(picture: ClassPicture) -> str:
    """The tar file, or what stands before the name in the path of a picture's own file."""
    if picture.span is not None:
        return picture.file
    assert picture.file.endswith(picture.name)
    return picture.file.removesuffix(picture.name)
