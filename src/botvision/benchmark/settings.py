"""Checks of the settings that the benchmarks share."""

import re
from collections.abc import Iterable

import torch

from botvision.errors import BotvisionError, nearest

DTYPES = ("float32", "bfloat16", "float16", "float64")


def check_known(name: str, word: str, known: Iterable[str]) -> str:
    """Return the word.

    Raises:
        BotvisionError: If it is not known; the message lists the known ones and the nearest.
    """
    known = list(known)
    if word not in known:
        hint = nearest(word, known)
        raise BotvisionError(f"{name}: expected one of {', '.join(known)}, got {word}{hint}")
    return word


def check_device(word: str) -> str:
    """Return the device to measure on; by default, "", a GPU if there is one.

    Raises:
        BotvisionError: If there is no such device.
    """
    if not word:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if check_known("device", word, ("cpu", "cuda")) == "cuda" and not torch.cuda.is_available():
        raise BotvisionError("device: torch finds no CUDA device here, got cuda; use cpu")
    return word


def check_size(word: str) -> tuple[int, int]:
    """Return height and width of a map written as 64x48.

    Raises:
        BotvisionError: If it is not written like that.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", word)
    if match is None:
        raise BotvisionError(f"size: expected HEIGHTxWIDTH in cells, as 64x64, got {word}")
    return int(match[1]), int(match[2])


def dtype_named(name: str) -> torch.dtype:
    """Return the dtype with the name, which must be one of ``DTYPES``.

    Raises:
        BotvisionError: If it is another.
    """
    dtype: torch.dtype = getattr(torch, check_known("dtype", name, DTYPES))
    return dtype
