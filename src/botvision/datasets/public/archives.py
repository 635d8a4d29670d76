"""Unpacking archives that may be damaged or hostile.

Only plain files and folders come out, all of them inside the new folder. Links are refused even
where they stay inside: data sets need none, and Python's own check of them has been evaded before
(CVE-2025-4517).
"""

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from botvision.errors import BotvisionError
from botvision.files import new_folder

MOST_BYTES = 200 * 10**9
MOST_MEMBERS = 5_000_000
_MOST_RATIO = 100  # unpacked to packed; JSON of numbers reaches about 10, a bomb 1,000
_FREE_BYTES = 100 * 2**20  # to which no ratio is applied: small text may well shrink so much
_LARGEST_HEADER = 2**24
_CHUNK = 2**20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Member:
    """A plain file or a folder of an archive.

    Attributes:
        name: As the archive spells it.
        size: Bytes unpacked.
        open: Opens the content; None for a folder.
        packed: Bytes of the archive that are read when this member has been.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None
    packed: int


def extract_archive(
    archive: Path,
    folder: Path,
    *,
    progress: Progress,
    most_bytes: int = MOST_BYTES,
    most_members: int = MOST_MEMBERS,
) -> None:
    """Unpack a zip, tar or tar.gz file into a new folder; on an error nothing is written.

    Args:
        archive: The file; its content tells its kind.
        folder: Where to; must not exist.
        progress: Called with the bytes of the archive done and all of them.
        most_bytes: Unpacked.
        most_members: Files and folders.

    Raises:
        BotvisionError: If the archive is damaged, is too large unpacked, or holds anything but
            plain files and folders with paths inside the new folder.
    """
    with new_folder(folder) as written:
        extract_into(
            archive, written, progress=progress, most_bytes=most_bytes, most_members=most_members
        )


def extract_into(
    archive: Path,
    folder: Path,
    *,
    progress: Progress,
    most_bytes: int = MOST_BYTES,
    most_members: int = MOST_MEMBERS,
) -> None:
    """``extract_archive`` into a folder of the caller's that no one sees yet."""
    packed = archive.stat().st_size
    allowed = min(most_bytes, max(_FREE_BYTES, _MOST_RATIO * packed))
    unpacked = 0
    try:
        for number, member in enumerate(_members(archive), start=1):
            if number > most_members:
                raise BotvisionError(f"{archive}: expected at most {most_members:,} members")
            unpacked += member.size
            if unpacked > allowed:
                raise BotvisionError(
                    f"{archive}: member {member.name!r}: expected at most {allowed:,} bytes "
                    f"unpacked from {packed:,}, got {unpacked:,} up to here; not unpacked"
                )
            _write(archive, member, folder)
            progress(member.packed, packed)
    except BotvisionError:
        raise
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a version that zipfile does not know
        UnicodeError,
        ValueError,  # numbers in headers that are none
    ) as error:
        raise BotvisionError(f"{archive}: cannot be unpacked ({error}); get it again") from error


def _write(archive: Path, member: _Member, folder: Path) -> None:
    """Write a member; its size is as the archive declares it, or that is an error."""
    target = folder / _inner_path(archive, member.name)
    written = 0
    try:
        if member.open is None:
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x", since a second member of one name would hide the first.
        with member.open() as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                if written > member.size:
                    break
                file.write(chunk)
    except (FileExistsError, NotADirectoryError) as error:
        raise BotvisionError(f"{archive}: member {member.name!r}: occurs twice") from error
    if written != member.size:
        raise BotvisionError(
            f"{archive}: member {member.name!r}: expected {member.size:,} bytes, got "
            f"{'more' if written > member.size else f'{written:,}'}; get it again"
        )


def _inner_path(archive: Path, name: str) -> PurePosixPath:
    windows = PureWindowsPath(name)
    parts = windows.parts
    if windows.drive or windows.root or ".." in parts or "\0" in name:
        raise BotvisionError(
            f"{archive}: member {name!r}: expected a path inside the archive's folder; not unpacked"
        )
    return PurePosixPath(*parts)


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
        return
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with _Gzip(fileobj=file) as content:
                yield from _tar_members(archive, content, file)
                # tarfile stops at the last member; gzip's checksum comes after it.
                while content.read(_CHUNK):
                    pass
        else:
            yield from _tar_members(archive, file, file)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        read = 0
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _other_kind(archive, info.filename)
            if info.flag_bits & 1 or info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise BotvisionError(
                    f"{archive}: member {info.filename!r}: expected it stored or deflated and "
                    "without a password"
                )
            read += info.compress_size
            content = None if info.is_dir() else _opener(opened.open, info)
            # orig_filename is what the archive says; filename ends at the first NUL.
            yield _Member(info.orig_filename, info.file_size, content, read)


def _opener(
    open_info: Callable[[zipfile.ZipInfo], IO[bytes]], info: zipfile.ZipInfo
) -> Callable[[], IO[bytes]]:
    return lambda: open_info(info)


def _tar_members(
    archive: Path, content: IO[bytes] | gzip.GzipFile, file: IO[bytes]
) -> Iterator[_Member]:
    with tarfile.open(fileobj=content, mode="r:") as opened:
        for info in opened:
            if info.isdir():
                yield _Member(info.name, 0, None, file.tell())
            elif info.isreg():
                yield _Member(info.name, info.size, _tar_opener(opened, info), file.tell())
            else:
                raise _other_kind(archive, info.name)


def _tar_opener(opened: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def open_info() -> IO[bytes]:
        content = opened.extractfile(info)
        assert content is not None, "only links and folders have no content"
        return content

    return open_info


def _other_kind(archive: Path, name: str) -> BotvisionError:
    return BotvisionError(
        f"{archive}: member {name!r}: expected plain files and folders, got a link or a device; "
        "not unpacked"
    )


class _Gzip(gzip.GzipFile):
    """Refuses to hold a great header in memory, which tarfile would read in one piece."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)
