"""Downloading large files: goes on where it was cut off, and checks what came.

The functions of torch.hub and torchvision begin again after every cut, and torchvision's turns to
unencrypted HTTP when HTTPS fails; hence our own on urllib.
"""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from botvision.errors import BotvisionError

_ATTEMPTS = 5  # in a row without a byte, once some have come; the first one shows what is wrong
_WAIT = 2.0  # seconds, times the number of attempts
_TIMEOUT = 60.0
_CHUNK = 2**20


@dataclass(frozen=True)
class RemoteFile:
    """A file to download, and what it must be.

    Attributes:
        url: HTTP or HTTPS address.
        size: Bytes.
        algorithm: Of the checksum, as hashlib names it; "" where no one has published one.
        checksum: In hexadecimal.
    """

    url: str
    size: int
    algorithm: str = ""
    checksum: str = ""

    @property
    def name(self) -> str:
        """The file's name, the address's last part."""
        return self.url.rpartition("/")[2]


class _RefusalError(Exception):
    """The server's answer will not be another one the next time."""


def download(
    remote: RemoteFile, folder: Path, *, progress: Callable[[int, int], None], wait: float = _WAIT
) -> Path:
    """Download a file, or go on with it.

    What has come is kept as ``<name>.part`` whatever happens, and the next call goes on there; the
    file has its name once its size and checksum are right.

    Args:
        remote: What.
        folder: Where to; made if it is missing.
        progress: Called with the bytes done and all of them.
        wait: Seconds after the first failed attempt; later ones wait longer.

    Returns:
        The file.

    Raises:
        BotvisionError: Without network, if the server has no such file, or if what came is not it.
    """
    target = folder / remote.name
    if target.is_file() and target.stat().st_size == remote.size:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{remote.name}.part"
    failures, before = 0, _size(part)
    while (done := _size(part)) < remote.size:
        try:
            _fetch(remote, part, done, progress)
            failure = "the connection was cut"
        except _RefusalError as error:
            raise BotvisionError(f"{remote.url}: {error}; nothing more was downloaded") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:  # of the disk, not of the network
                raise
            failure = str(getattr(error, "reason", None) or error) or type(error).__name__
        failures = 0 if _size(part) > done else failures + 1
        if failures == (1 if _size(part) == before else _ATTEMPTS):
            raise BotvisionError(
                f"{remote.url}: cannot be downloaded ({failure}); {_size(part):,} of "
                f"{remote.size:,} bytes are in {part}; check the network and run the command again"
            )
        if failures:
            time.sleep(wait * failures)
    progress(remote.size, remote.size)
    _check(remote, part)
    part.replace(target)
    return target


def _fetch(remote: RemoteFile, part: Path, done: int, progress: Callable[[int, int], None]) -> None:
    """Append to the part what one answer of the server brings."""
    request = urllib.request.Request(  # noqa: S310 - the addresses are constants of ours
        remote.url, headers={"User-Agent": "botvision", "Accept-Encoding": "identity"}
    )
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (408, 429) or error.code >= 500:
            raise http.client.HTTPException(f"HTTP status {error.code}") from error
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)  # of a larger file than the server has
        raise _RefusalError(f"HTTP status {error.code} {error.reason}") from error
    with answer:
        begun = done if _goes_on(answer, done) else 0
        with part.open("ab" if begun else "wb") as file:
            while chunk := answer.read(_CHUNK):
                begun += len(chunk)
                if begun > remote.size:
                    part.unlink()
                    raise _RefusalError(f"expected {remote.size:,} bytes, the server sends more")
                file.write(chunk)
                progress(begun, remote.size)


def _goes_on(answer: http.client.HTTPResponse, done: int) -> bool:
    """Whether the answer begins where we stopped; without ranges it begins at the start."""
    if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
        return False
    given = str(answer.headers.get("Content-Range", ""))
    if not given.startswith(f"bytes {done}-"):
        raise _RefusalError(f"expected a range from byte {done}, got Content-Range {given!r}")
    return True


def _check(remote: RemoteFile, part: Path) -> None:
    if not remote.algorithm:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, remote.algorithm).hexdigest()
    if found != remote.checksum:
        part.unlink()
        raise BotvisionError(
            f"{remote.url}: {remote.algorithm}: expected {remote.checksum}, got {found}; what came "
            "was removed; run the command again"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
