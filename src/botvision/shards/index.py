"""The index of a folder of shards: which images its tar files hold, and where.

Shards are those of WebDataset: uncompressed tar files of numbered samples, an image followed by its
labels. The index, ``index.json``, adds the names and offsets of the images, so that any of them can
be read directly.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from botvision.errors import BotvisionError

INDEX = "index.json"
FORMAT = "botvision shards 1"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.tar")


class Shard(msgspec.Struct, frozen=True):
    """A tar file of images.

    Attributes:
        name: Name of the file, which is in the folder of the index.
        size: Size in bytes.
        sha256: SHA-256 of the file, in hexadecimal; "" for tar files without an index.
        images: Name, offset in the file and size in bytes of each image.
    """

    name: str
    size: int
    sha256: str
    images: list[tuple[str, int, int]]


class ShardIndex(msgspec.Struct, frozen=True):
    """Content of ``index.json``: ``FORMAT``, and the shards in the order of the images."""

    format: str
    shards: list[Shard]


def is_sharded(folder: Path) -> bool:
    """Return whether the images of a folder are in shards."""
    return (folder / INDEX).is_file()


def write_index(folder: Path, shards: Sequence[Shard]) -> None:
    """Write ``index.json`` into a folder that nobody reads yet."""
    (folder / INDEX).write_bytes(msgspec.json.encode(ShardIndex(FORMAT, list(shards))))


def read_index(folder: Path) -> list[Shard]:
    """Return the shards of a folder.

    Raises:
        BotvisionError: If the index is damaged, or names a file outside the folder, an image
            twice or bytes that are not in their file.
    """
    path = folder / INDEX
    try:
        index = msgspec.json.decode(path.read_bytes(), type=ShardIndex)
        if index.format != FORMAT:
            raise ValueError(f"format: expected {FORMAT!r}, got {index.format!r}")
        seen: set[str] = set()
        for shard in index.shards:
            if not _PLAIN_NAME.fullmatch(shard.name):
                raise ValueError(f"shard {shard.name!r}: expected the name of a tar file here")
            for name, start, size in shard.images:
                if not 0 <= start <= start + size <= shard.size:
                    raise ValueError(
                        f"image {name!r}: expected a range of the {shard.size:,} bytes of "
                        f"{shard.name}, got {size:,} from {start:,}"
                    )
                if name in seen:
                    raise ValueError(f"image {name!r}: occurs twice")
                seen.add(name)
        if not seen:
            raise ValueError("expected at least one image, got none")
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise BotvisionError(
            f"{path}: {error}; write it anew with: botvision data shard"
        ) from error
    return index.shards
