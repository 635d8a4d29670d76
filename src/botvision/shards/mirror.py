"""Data folders by path or by address.

A sharded data set at an address is mirrored: a folder in the cache gets its annotations and
indexes, and its shards when they are first read. Readers see an ordinary folder.
"""

import contextlib
import hashlib
import math
import os
from pathlib import Path, PurePosixPath

import msgspec

from botvision.errors import BotvisionError
from botvision.files import cache_folder, locked, replacing
from botvision.shards.fetch import fetch, fetch_small
from botvision.shards.index import FORMAT, INDEX
from botvision.shards.write import MANIFEST, FileDigest, Manifest

LIMIT_VARIABLE = "BOTVISION_CACHE_GIB"
"""Environment variable that limits the size of all fetched shards."""

_ORIGIN = "origin.txt"  # beside the index of fetched shards; the address of their folder


def open_data_folder(folder: str) -> Path:
    """Return the folder itself, or the mirror of a folder at an address.

    Args:
        folder: Path, or address of a folder that ``botvision data shard`` has written, such as
            ``s3://bucket/coco``; any that fsspec knows.

    Raises:
        BotvisionError: If there is no such data set at the address.
    """
    if "://" not in folder:
        return Path(folder)
    origin = folder.rstrip("/")
    content = fetch_small(f"{origin}/{MANIFEST}")
    files = _files(content, f"{origin}/{MANIFEST}")
    cache = cache_folder()
    if cache is None:
        raise BotvisionError("no folder for a cache: set BOTVISION_CACHE to one with enough space")
    # A changed data set gets another mirror, so that no run mixes two states.
    key = hashlib.sha256(origin.encode() + b"\n" + content).hexdigest()[:32]
    mirror = cache / "shards" / key
    mirror.mkdir(parents=True, exist_ok=True)
    with locked(mirror / ".lock"):
        for name, expected in files.items():
            path = mirror / name
            if path.is_file() and path.stat().st_size == expected.size:
                continue  # it got its name only once it was right
            path.parent.mkdir(parents=True, exist_ok=True)
            url = f"{origin}/{name}"
            if path.name == INDEX:
                with replacing(path.with_name(_ORIGIN)) as temporary:
                    temporary.write_text(url.removesuffix(f"/{INDEX}"), encoding="utf-8")
            fetch(url, path, size=expected.size, checksum=f"sha256:{expected.sha256}")
    return mirror


def _files(content: bytes, url: str) -> dict[str, FileDigest]:
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BotvisionError(
            f"{url}: {error}; expected what botvision data shard has written"
        ) from error
    if manifest.format != FORMAT:
        raise BotvisionError(f"{url}: format: expected {FORMAT!r}, got {manifest.format!r}")
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise BotvisionError(f"{url}: file {name!r}: expected a path inside the folder")
    return manifest.files


def origin_of(folder: Path) -> str | None:
    """Return the address that the shards of a folder come from; None if they come from none."""
    # A folder from somebody else must not send the program to addresses of theirs.
    cache = cache_folder()
    if cache is None or not folder.is_relative_to(cache / "shards"):
        return None
    path = folder / _ORIGIN
    return path.read_text(encoding="utf-8") if path.is_file() else None


def cache_limit() -> float:
    """Return how many bytes the cache may hold; infinite without a limit.

    Raises:
        BotvisionError: If the user's limit is not a positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "inf")
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise BotvisionError(f"{LIMIT_VARIABLE}: expected a number of GiB, got {text!r}")
    return limit * 2**30


def make_room(fetched: Path) -> None:
    """Remove the least recently read shards until the rest fit into the limit.

    Args:
        fetched: Path of a shard in the cache, which stays.
    """
    cache, limit = cache_folder(), cache_limit()
    if cache is None or limit == math.inf:
        return
    found = []
    for path in (cache / "shards").rglob("[!.]*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room, too
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            break
        if path != fetched:
            path.unlink(missing_ok=True)
            total -= size
