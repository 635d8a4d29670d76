"""Data folders by path or by address.

A sharded data set at an address is mirrored: a folder in the cache gets its annotations and
indexes, and its shards when they are first read. Readers see an ordinary folder.
"""

import hashlib
from pathlib import Path, PurePosixPath

import msgspec

from botvision.errors import BotvisionError
from botvision.files import locked, replacing
from botvision.shards.fetch import fetch, fetch_small
from botvision.shards.index import FORMAT, INDEX
from botvision.shards.read import ORIGIN, mirrors
from botvision.shards.write import MANIFEST, FileDigest, Manifest


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
    # A changed data set gets another mirror, so that no run mixes two states.
    key = hashlib.sha256(origin.encode() + b"\n" + content).hexdigest()[:32]
    mirror = mirrors() / key
    mirror.mkdir(parents=True, exist_ok=True)
    with locked(mirror / ".lock"):
        for name, expected in files.items():
            _mirror(origin, name, expected, mirror)
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


def _mirror(origin: str, name: str, expected: FileDigest, mirror: Path) -> None:
    path = mirror / name
    if path.is_file() and path.stat().st_size == expected.size:
        return  # it got its name only once it was right
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == INDEX:
        with replacing(path.with_name(ORIGIN)) as temporary:
            temporary.write_text(f"{origin}/{name}".removesuffix(f"/{INDEX}"), encoding="utf-8")
    fetch(f"{origin}/{name}", path, size=expected.size, checksum=f"sha256:{expected.sha256}")
