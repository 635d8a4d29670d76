"""Annotation files in folders, told by their content: COCO, Pascal VOC and labelme."""

import codecs
import contextlib
import functools
import json
import mmap
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from botvision.images.find import walk_files

_COCO_LISTS = ("images", "annotations", "categories")
_XML_HEAD = 2**16  # bytes that tell whose XML file it is
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_coco(path: Path) -> bool:
    """Return whether a JSON file has COCO's lists of images, annotations and categories."""
    status = path.stat()
    return _is_coco(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=2**14)  # each split's search asks again
def _is_coco(path: Path, *_: int) -> bool:
    return not missing_lists(path)


def missing_lists(path: Path) -> list[str]:
    """Return which of COCO's lists a JSON file lacks."""
    with _content(path) as content:
        if not _is_object(content):
            return list(_COCO_LISTS)
        return [key for key in _COCO_LISTS if not _has_list(content, key)]


def first_file_names(path: Path, count: int = 20) -> list[str]:
    """Return the first images' names in a COCO file, without parsing maybe half a gigabyte."""
    with _content(path) as content:
        names = islice(_texts(content, "file_name"), count)
        urls = islice(_texts(content, "coco_url"), count)
        return list(names) or [name_in_url(url) for url in urls]


def name_in_url(url: str) -> str:
    """Return the file name in LVIS's addresses of images, such as "val2017/000000397133.jpg"."""
    return "/".join(url.split("/")[-2:])


def _texts(content: bytes | mmap.mmap, key: str) -> Iterator[str]:
    for found in re.finditer(rb'"%b"\s*:\s*("(?:[^"\\]|\\.)*")' % key.encode(), content):
        with contextlib.suppress(ValueError):  # not UTF-8 among them
            yield str(json.loads(found[1]))


def labelme_files(folder: Path) -> Iterator[Path]:
    """Yield JSON files of single images, in the folder and below."""
    yield from filter(_is_labelme, walk_files(folder, ".json"))


def voc_files(folder: Path) -> Iterator[Path]:
    """Yield XML files of single images, in the folder and below.

    A folder that holds one is taken whole, so that a file that is empty or damaged is not missed.
    """
    files: dict[Path, list[Path]] = {}
    for path in walk_files(folder, ".xml"):
        files.setdefault(path.parent, []).append(path)
    for parent, own in files.items():
        if any(map(_is_voc, own)) or (parent.name.lower() == "annotations" and _unknown(own)):
            yield from own


def _is_voc(path: Path) -> bool:
    head = read_head(path)
    # LabelMe, labelme's older namesake, has the same root but other elements.
    of_labelme = re.search(rb"<(imagesize|pt)>", head)
    return not of_labelme and re.search(rb"<annotation[\s>/]", head) is not None


def _unknown(paths: list[Path]) -> bool:
    """Return whether no file is recognizable as another tool's."""
    return not any(
        re.search(rb"<(annotations|pt|imagesize)[\s>]", read_head(path)) for path in paths
    )


def _is_labelme(path: Path) -> bool:
    with _content(path) as content:
        # "tracks" are in CVAT's own JSON. Files that are cut off are recognized, too.
        return (
            _is_object(content)
            and re.search(rb'"shapes"\s*:', content) is not None
            and not _has_list(content, "tracks")
            and not _has_list(content, "annotations")
        )


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file, enough to tell whose it is; of UTF-16, as ASCII."""
    with path.open("rb") as file:
        head = file.read(_XML_HEAD)
    return head.replace(b"\0", b"") if head.startswith(_UTF16) else head


@contextlib.contextmanager
def _content(path: Path) -> Iterator[bytes | mmap.mmap]:
    """Yield what a search needs of a file, which may be larger than the memory."""
    with path.open("rb") as file:
        if file.read(2) in _UTF16:
            yield path.read_bytes().decode("utf-16", errors="replace").encode()
        elif file.seek(0, 2) == 0:
            yield b""
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield content


def _is_object(content: bytes | mmap.mmap) -> bool:
    return re.match(rb"(\xef\xbb\xbf)?\s*\{", content) is not None


def _has_list(content: bytes | mmap.mmap, key: str) -> bool:
    return re.search(rb'"%b"\s*:\s*\[' % key.encode(), content) is not None
