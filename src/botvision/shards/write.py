"""Writing images into shards."""

import hashlib
import io
import itertools
import random
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from botvision.shards.index import FORMAT, Shard, write_index

MANIFEST = "shards.json"
_SEED = 0


class FileDigest(msgspec.Struct, frozen=True):
    """Size in bytes and hexadecimal SHA-256 of a file of a sharded data set."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """Content of ``shards.json``, the list of a sharded data set's files.

    Attributes:
        format: ``FORMAT``.
        files: All files but the shards, by their path in the folder.
    """

    format: str
    files: dict[str, FileDigest]


@dataclass(frozen=True)
class Sample:
    """An image to be written into a shard.

    Attributes:
        name: Unique name of the image.
        content: Bytes of the image file.
        beside: Suffix and bytes of the file beside it, which holds its labels for other readers of
            WebDataset's shards.
    """

    name: str
    content: bytes
    beside: tuple[str, bytes]


def stored_order(split: str, count: int) -> list[int]:
    """Return the order in which the images of a split are written.

    Training images are shuffled: neighbors in a file are often alike, and the images of a shard are
    trained on together.
    """
    order = list(range(count))
    if split == "train":
        random.Random(_SEED).shuffle(order)
    return order


def write_shards(
    folder: Path,
    samples: Iterable[Sample],
    *,
    shard_size: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write images, unchanged and in their order, into shards with an index.

    The same samples give the same bytes.

    Args:
        folder: Empty folder that nobody reads yet.
        samples: Images to write; at least one. A generator keeps one in memory at a time.
        shard_size: Size in bytes at which a shard ends.
        progress: Called with the number of images written.

    Returns:
        The number of shards.
    """
    shards: list[Shard] = []
    numbered = enumerate(samples)
    for first in numbered:
        path = folder / f"{len(shards):05d}.tar"
        images: list[tuple[str, int, int]] = []
        # USTAR headers are one block each as long as names are short, which ours are.
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, sample in itertools.chain([first], numbered):
                start = archive.offset + tarfile.BLOCKSIZE
                images.append((sample.name, start, len(sample.content)))
                suffix = PurePosixPath(sample.name).suffix.lower()
                for ending, stored in ((suffix, sample.content), sample.beside):
                    member = tarfile.TarInfo(f"{number:09d}{ending}")
                    member.size = len(stored)
                    archive.addfile(member, io.BytesIO(stored))
                if progress is not None:
                    progress(number + 1)
                if archive.offset >= shard_size:
                    break
        shards.append(Shard(path.name, path.stat().st_size, _sha256(path), images))
    write_index(folder, shards)
    return len(shards)


def write_manifest(folder: Path) -> None:
    """Write ``shards.json`` into a folder that is otherwise complete."""
    files = {
        path.relative_to(folder).as_posix(): FileDigest(path.stat().st_size, _sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".tar"
    }
    (folder / MANIFEST).write_bytes(msgspec.json.encode(Manifest(FORMAT, files)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
