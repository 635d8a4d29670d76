"""What a benchmark is asked for: the checks that both share, one line for each mistake."""

import re
from collections.abc import Iterable

import torch

from botvision.errors import BotvisionError, nearest

DTYPES = ("float32", "bfloat16", "float16", "float64")
DEVICES = ("cpu", "cuda")


def check_known(option: str, word: str, known: Iterable[str]) -> str:
    """The word, if it is one of those known.

    Raises:
        BotvisionError: If it is not; the message lists those known and the nearest.
    """
    known = list(known)
    if word not in known:
        hint = nearest(word, known)
        raise BotvisionError(f"{option} {word}: expected one of {', '.join(known)}{hint}")
    return word


def check_dtype(word: str) -> str:
    """The name of a dtype, if it is one that is measured.

    Raises:
        BotvisionError: If it is not.
    """
    return check_known("--dtype", word, DTYPES)


def check_device(word: str | None) -> str:
    """The device to measure on; a GPU where there is one if none is named.

    Raises:
        BotvisionError: If there is no such device.
    """
    if word is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if check_known("--device", word, DEVICES) == "cuda" and not torch.cuda.is_available():
        raise BotvisionError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return word


def check_size(word: str) -> tuple[int, int]:
    """Height and width of a map written as 64x48.

    Raises:
        BotvisionError: If it is not written so.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", word)
    if match is None:
        raise BotvisionError(f"--size {word}: expected HEIGHTxWIDTH in cells, as 64x64")
    return int(match[1]), int(match[2])


def dtype_named(name: str) -> torch.dtype:
    """The dtype of that name."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
