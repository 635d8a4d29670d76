"""Finding the images in tar files, so that they are read in any order without unpacking.

WebDataset's shards are tar files too: the class of an image is the number in the file beside it
that has the same name and the suffix ".cls".
"""

import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botvision.errors import BotvisionError
from botvision.images.find import is_image_name
from botvision.shards.index import Shard

_CLASS_SUFFIX = ".cls"


def tar_shard(path: Path, folder: str = "") -> Shard:
    """Return a tar file as a shard of its images, and of those in tar files inside it.

    Args:
        path: Path of the tar file.
        folder: Folder put before the names of the images; ends in "/" if it is not empty.

    Returns:
        The shard. Names are paths inside the archive, a tar file in it counting as a folder; in
        WebDataset's shards they are ``<archive>/<class>/<file>``.

    Raises:
        BotvisionError: If it is not an uncompressed tar file or is cut short, or if only some
            images of a WebDataset shard have a class.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            members = [*_members(archive, folder, 0)]
        with path.open("rb") as file:
            # tarfile takes a file cut between two members for whole; zeros end one that is.
            file.seek(-tarfile.BLOCKSIZE, 2)
            if file.read().strip(b"\0"):
                raise tarfile.ReadError("its end is missing")
            size = file.tell()
            classes = {}
            for name, start, length in members:
                if name.endswith(_CLASS_SUFFIX):
                    file.seek(start)
                    text = file.read(min(length, 100)).decode("ascii", "replace").strip()
                    if not text.isdecimal():
                        raise BotvisionError(
                            f"{path}: {name}: expected the number of a class, got {text!r}"
                        )
                    classes[_key(name)] = int(text)
    except (OSError, tarfile.TarError) as error:
        raise BotvisionError(f"{path}: expected an uncompressed tar file ({error})") from error
    images = []
    for member, start, length in members:
        if member.endswith(_CLASS_SUFFIX):
            continue
        name = posixpath.normpath(member)
        if classes:
            key = _key(member)
            if key not in classes:
                beside = f"{posixpath.basename(key)}{_CLASS_SUFFIX}"
                raise BotvisionError(
                    f"{path}: {member}: expected {beside} beside it, as other images have"
                )
            name = f"{path.stem}/{classes[key]}/{posixpath.basename(name)}"
        images.append((name, start, length))
    return Shard(path.name, size, "", images)


def _members(archive: tarfile.TarFile, folder: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yield names of images and class files, their offsets in the outermost file and sizes."""
    for member in archive:
        stem, suffix = posixpath.splitext(member.name)
        begin = start + member.offset_data
        if not member.isfile():
            continue
        if is_image_name(member.name) or suffix == _CLASS_SUFFIX:
            yield folder + member.name, begin, member.size
        elif suffix.lower() == ".tar":
            inner: Any = archive.extractfile(member)
            with inner, tarfile.open(fileobj=inner, mode="r:") as nested:
                yield from _members(nested, f"{folder}{stem}/", begin)


def _key(name: str) -> str:
    """Key that WebDataset joins files by: the path up to the first dot of the file name."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"
