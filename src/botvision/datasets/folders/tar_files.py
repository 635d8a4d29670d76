"""Where in tar files images are, so that they are read in any order without unpacking.

WebDataset's shards are tar files too: an image's class is the number in the file beside it that
has the same name and the suffix ".cls".
"""

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botvision.errors import BotvisionError
from botvision.images.decode import IMAGE_SUFFIXES

_CLASS_SUFFIX = ".cls"


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a tar file.

    Attributes:
        name: Path inside the archive, with "/"; in a shard behind a folder of its class.
        start: Where in the file it begins.
        size: Its bytes.
    """

    name: str
    start: int
    size: int


def tar_images(path: Path, folder: str = "") -> Iterator[Member]:
    """Images of a tar file, and of tar files in it, which are folders.

    Args:
        path: The file.
        folder: Put before their names; ends in "/" if it is not empty.

    Raises:
        BotvisionError: If it is no uncompressed tar file or is cut short, or if some images of a
            shard have a class and others do not.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            members = [*_members(archive, folder, 0)]
        with path.open("rb") as file:
            # Without the zeros that end it, tarfile takes a file cut between two members for whole.
            file.seek(-tarfile.BLOCKSIZE, 2)
            if file.read().strip(b"\0"):
                raise tarfile.ReadError("its end is missing")
            classes = {
                _key(each.name): _class(file, each, path) for each in members if _is_class(each)
            }
    except (OSError, tarfile.TarError) as error:
        raise BotvisionError(f"{path}: expected an uncompressed tar file ({error})") from error
    for member in members:
        if _is_class(member):
            continue
        name = posixpath.normpath(member.name)
        if classes:
            key = _key(member.name)
            if key not in classes:
                beside = f"{posixpath.basename(key)}{_CLASS_SUFFIX}"
                raise BotvisionError(
                    f"{path}: {member.name}: expected {beside} beside it, as other images have"
                )
            name = f"{path.stem}/{classes[key]}/{posixpath.basename(name)}"
        yield Member(name, member.start, member.size)


def _members(archive: tarfile.TarFile, folder: str, start: int) -> Iterator[Member]:
    """Images and classes of an archive, by their place in the outermost file."""
    for member in archive:
        stem, suffix = posixpath.splitext(member.name)
        begin = start + member.offset_data
        if not member.isfile():
            continue
        if suffix.lower() in IMAGE_SUFFIXES or suffix == _CLASS_SUFFIX:
            yield Member(folder + member.name, begin, member.size)
        elif suffix.lower() == ".tar":
            inner: Any = archive.extractfile(member)
            with inner, tarfile.open(fileobj=inner, mode="r:") as nested:
                yield from _members(nested, f"{folder}{stem}/", begin)


def _is_class(member: Member) -> bool:
    return member.name.endswith(_CLASS_SUFFIX)


def _key(name: str) -> str:
    """What WebDataset joins files by: the path up to the first dot of the name."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def _class(file: Any, member: Member, path: Path) -> str:
    file.seek(member.start)
    text = file.read(min(member.size, 100)).decode("ascii", "replace").strip()
    if not text.isdecimal():
        raise BotvisionError(f"{path}: {member.name}: expected the number of a class, got {text!r}")
    return str(int(text))
