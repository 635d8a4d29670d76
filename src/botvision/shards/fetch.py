"""Fetching files by their addresses, from object storage or a web server."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec

from botvision.errors import BotvisionError
from botvision.files import replacing

_ATTEMPTS = 5
_WAIT = 2.0  # seconds, times the number of attempts
_CHUNK = 2**20


class _CutError(Exception):
    """What may be different the next time."""


def fetch(url: str, path: Path, *, size: int, sha256: str) -> None:
    """Fetch a file, all or nothing; what is cut off is tried again some times.

    Args:
        url: Of any kind that fsspec knows, ``s3://`` and ``https://`` among them.
        path: Where to; its folder must exist.
        size: Bytes that it must have.
        sha256: That it must have, in hexadecimal.

    Raises:
        BotvisionError: If there is no such file, it cannot be fetched or is another one.
        OSError: If it cannot be written.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        digest, done = hashlib.sha256(), 0
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                for chunk in _chunks(url):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if done > size:
                        break
                if (done, digest.hexdigest()) != (size, sha256):
                    raise BotvisionError(
                        f"{url}: expected {size:,} bytes of sha256 {sha256[:8]}..., got {done:,} "
                        f"of {digest.hexdigest()[:8]}...; was it written anew? Start again"
                    )
            return
        except _CutError as error:
            if attempt == _ATTEMPTS:
                raise BotvisionError(f"{url}: cannot be fetched ({error}); start again") from error
            time.sleep(_WAIT * attempt)


def fetch_small(url: str, *, most: int = 2**24) -> bytes:
    """The content of a small file.

    Raises:
        BotvisionError: If there is none, it cannot be fetched or is not small.
    """
    content = b""
    try:
        for chunk in _chunks(url):
            content += chunk
            if len(content) > most:
                raise BotvisionError(f"{url}: expected at most {most:,} bytes, got more")
    except _CutError as error:
        raise BotvisionError(f"{url}: cannot be fetched ({error})") from error
    return content


def _chunks(url: str) -> Iterator[bytes]:
    try:
        with fsspec.open(url, "rb") as source:
            while chunk := source.read(_CHUNK):
                yield chunk
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
        raise _CutError(" ".join(str(error).split()) or type(error).__name__) from error
