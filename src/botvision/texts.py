"""Compact lists of strings.

A Python list is copied into each data worker bit by bit, because reference counting writes to its
memory. The arrays used here stay shared.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Texts(Sequence[bytes]):
    """Byte strings of any length, stored end to end in one array.

    Args:
        arrays: Arrays by name, as returned by ``pack``; others are ignored.
        name: Name of the list in ``arrays``.
    """

    def __init__(self, arrays: Mapping[str, Array], name: str) -> None:
        self._bytes, self._starts = arrays[name], arrays[f"{name}_starts"]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        first, end = self._starts[index : index + 2].tolist()
        return self._bytes[first:end].tobytes()

    @staticmethod
    def pack(name: str, texts: Sequence[bytes]) -> dict[str, Array]:
        """Return the arrays of byte strings: their bytes, and the start of each."""
        return {
            name: np.frombuffer(b"".join(texts), np.uint8),
            f"{name}_starts": starts(list(map(len, texts))),
        }


class Names(Sequence[str]):
    """Strings such as file names, at about 4 bytes each beside their own.

    Args:
        names: Any strings; undecodable parts of file names are kept.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self._texts = Texts(Texts.pack("names", encoded), "names")

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: Any) -> Any:
        text: bytes = self._texts[range(len(self))[index]]
        return text.decode("utf-8", "surrogatepass")


def starts(counts: Sequence[int] | Array) -> Array:
    """Return where each of some runs that lie end to end begins, and where the last one ends."""
    bounds = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=bounds[1:])
    return bounds.astype(np.uint32) if bounds[-1] <= np.iinfo(np.uint32).max else bounds
