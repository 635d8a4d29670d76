"""Writing images into shards."""

import hashlib
import io
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
    """Size and checksum of a file of a sharded data set.

    Attributes:
        size: Size in bytes.
        sha256: SHA-256, in hexadecimal.
    """

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
        read: Function that returns the bytes of the image file.
        beside: Suffix and bytes of the file beside it, which holds its labels for other readers of
            WebDataset's shards.
    """

    name: str
    read: Callable[[], bytes]
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
        samples: Images to write; at least one.
        shard_size: Size in bytes at which a shard ends.
        progress: Called with the number of images written.

    Returns:
        The number of shards.
    """
    shards: list[Shard] = []
    writer: _ShardWriter | None = None
    for number, sample in enumerate(samples):
        writer = writer or _ShardWriter(folder / f"{len(shards):05d}.tar")
        writer.add(number, sample)
        if writer.size >= shard_size:
            shards.append(writer.close())
            writer = None
        if progress is not None:
            progress(number + 1)
    if writer is not None:
        shards.append(writer.close())
    write_index(folder, shards)
    return len(shards)


def write_manifest(folder: Path) -> None:
    """Write ``shards.json`` into a folder that is otherwise complete."""
    files = {
        path.relative_to(folder).as_posix(): FileDigest(path.stat().st_size, sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".tar"
    }
    (folder / MANIFEST).write_bytes(msgspec.json.encode(Manifest(FORMAT, files)))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _ShardWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        # USTAR headers are one block each as long as names are short, which ours are.
        self._archive = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._images: list[tuple[str, int, int]] = []

    @property
    def size(self) -> int:
        return self._archive.offset

    def add(self, number: int, sample: Sample) -> None:
        content = sample.read()
        suffix = PurePosixPath(sample.name).suffix.lower()
        start = self._append(f"{number:09d}{suffix}", content)
        self._images.append((sample.name, start, len(content)))
        self._append(f"{number:09d}{sample.beside[0]}", sample.beside[1])

    def close(self) -> Shard:
        self._archive.close()
        size = self._path.stat().st_size
        return Shard(self._path.name, size, sha256(self._path), self._images)

    def _append(self, name: str, content: bytes) -> int:
        """Append a member and return the offset of its content."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        start = self._archive.offset + tarfile.BLOCKSIZE
        self._archive.addfile(member, io.BytesIO(content))
        return start
