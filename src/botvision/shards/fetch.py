"""Fetching files by their addresses, from object storage or a web server."""

import hashlib
import http
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec

from botvision.errors import BotvisionError

_ATTEMPTS = 5  # in a row that bring nothing
_WAIT = 1.0  # seconds, times the number of attempts
_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 2**20
_BLOCK = 2**24  # asked for at a time from object storage


class _CutError(Exception):
    """A fault that may be gone the next time."""


def fetch(
    url: str,
    path: Path,
    *,
    size: int,
    checksum: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fetch a file; it gets its name only once its size and checksum are right.

    What has come is kept as ``<name>.part`` beside it. Further attempts, and later calls, go on
    there if the server can.

    Args:
        url: Address of any kind that fsspec knows, such as ``s3://`` or ``https://``.
        path: Path of the file to write; its folder must exist.
        size: Expected number of bytes.
        checksum: Expected checksum, as "sha256:" or another algorithm of hashlib and the
            hexadecimal digest; "" checks the size alone.
        progress: Called with the number of bytes fetched and the total.

    Raises:
        BotvisionError: If there is no such file, it cannot be fetched, or it has another size or
            checksum.
        OSError: If it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    failures = 0
    while True:
        before = _size(part)
        try:
            for position, chunk in _chunks(url, before) if before < size else ():
                with part.open("ab") as file:
                    file.truncate(position)
                    file.write(chunk)
                done = position + len(chunk)
                if progress is not None:
                    progress(min(done, size), size)
                if done > size:
                    break
            break
        except _CutError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures == _ATTEMPTS:
                raise BotvisionError(f"{url}: cannot be fetched ({error}); start again") from error
            time.sleep(_WAIT * failures)
    algorithm, _, expected = checksum.partition(":")
    with part.open("ab+") as file:
        file.seek(0)
        digest = hashlib.file_digest(file, algorithm).hexdigest() if expected else ""
        os.fsync(file.fileno())
    got = _size(part)
    if (got, digest) != (size, expected):
        part.unlink()
        raise BotvisionError(
            f"{url}: expected {size:,} bytes of {algorithm or 'any'} {expected[:8]}..., got "
            f"{got:,} of {digest[:8]}...; was it written anew? Start again"
        )
    part.replace(path)


def fetch_small(url: str, *, limit: int = 2**24) -> bytes:
    """Return the content of a file of at most ``limit`` bytes.

    Raises:
        BotvisionError: If there is no such file, it cannot be fetched or is larger.
    """
    content = b""
    try:
        for _, chunk in _chunks(url, 0):
            content += chunk
            if len(content) > limit:
                raise BotvisionError(f"{url}: expected at most {limit:,} bytes, got more")
    except _CutError as error:
        raise BotvisionError(f"{url}: cannot be fetched ({error})") from error
    return content


def _chunks(url: str, start: int) -> Iterator[tuple[int, bytes]]:
    """Positions and bytes of a file from an offset on, or from 0 if the server has no ranges."""
    try:
        start, opened = _open(url, start)
        with opened as source:
            while chunk := source.read(_CHUNK):
                yield start, chunk
                start += len(chunk)
    except ImportError as error:
        raise BotvisionError(f"{url}: {error}") from error  # it says what to install
    except FileNotFoundError as error:
        cause = error.__cause__
        # fsspec says so, too, of a web server that does not answer.
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise _CutError(" ".join(str(cause).split())) from error
        raise BotvisionError(f"{url}: no such file") from error
    except PermissionError as error:
        raise BotvisionError(f"{url}: access is denied ({error}); log in") from error
    except ValueError as error:
        raise BotvisionError(f"{url}: {error}") from error
    except Exception as error:  # each kind of storage has its own
        status = getattr(error, "status", None)
        if status in (400, 401, 403, 410):
            raise BotvisionError(f"{url}: refused with HTTP status {status}") from error
        raise _CutError(" ".join(str(error).split()) or type(error).__name__) from error


def _open(url: str, start: int) -> tuple[int, Any]:
    """Open a file at an offset; returns the position that it really begins at."""
    if not url.startswith(("http://", "https://")):
        system, path = fsspec.url_to_fs(url)
        source = system.open(path, "rb", block_size=_BLOCK)
        return source.seek(start), source
    import aiohttp

    # aiohttp's default ends a download after five minutes and ignores the proxies of the system.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT, sock_read=_TIMEOUT)
    system, path = fsspec.url_to_fs(url, client_kwargs={"trust_env": True, "timeout": timeout})
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    # One streamed answer: fsspec asks for a range at a time otherwise, which some servers ignore.
    # A size, whichever, saves the request that asks for it.
    source = system.open(path, "rb", block_size=0, size=1, headers=headers)
    return start if source.r.status == http.HTTPStatus.PARTIAL_CONTENT else 0, source


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
