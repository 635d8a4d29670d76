"""Decoding JPEG images: ours beside plain Pillow, Pillow's draft mode and torchvision."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2 import functional as F

from botvision.benchmark.machine import Machine, describe_machine
from botvision.errors import BotvisionError
from botvision.images.decode import find_images, read_image

OURS = "botvision"


@dataclass(frozen=True)
class Decoder:
    """Figures of one way to make a JPEG file a tensor of its pixels.

    Attributes:
        name: Of the way.
        seconds: Median over the rounds of the time at work for all images, per image.
        ratio: Median over the rounds of the time as a multiple of ours.
        most_difference: Largest difference of a value, of 0..255, from plain Pillow's; None where
            the size of the image differs.
    """

    name: str
    seconds: float
    ratio: float
    most_difference: int | None


@dataclass(frozen=True)
class DecodingReport:
    """What ``botvision benchmark decoding`` found.

    Attributes:
        machine: That it ran on.
        images: Number of JPEG files.
        megapixels: Mean of an image.
        rounds: In each of which every image was decoded in every way, ways taking turns.
        decoders: One for each way.
    """

    machine: Machine
    images: int
    megapixels: float
    rounds: int
    decoders: list[Decoder]


def benchmark_decoding(
    folder: Path, *, rounds: int, progress: Callable[[str], None]
) -> DecodingReport:
    """Decode all JPEG images of a folder in all ways, in turns, in one thread.

    Args:
        folder: Holds the images, in subfolders or not.
        rounds: At least one, after one that does not count.
        progress: Is told what is going on.

    Raises:
        BotvisionError: If there are none.
    """
    machine = describe_machine("cpu")
    paths = [path for path in find_images(folder) if path.suffix.lower() in (".jpg", ".jpeg")]
    if not paths:
        raise BotvisionError(f"{folder}: holds no JPEG images")
    progress("comparing")
    truth = [_pillow(path) for path in paths]
    differences = {
        name: _most_difference(truth, (decode(path) for path in paths))
        for name, decode in DECODERS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in DECODERS}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        spent = dict.fromkeys(DECODERS, 0.0)
        for path in paths:
            for name, decode in DECODERS.items():
                start = time.thread_time()
                decode(path)
                spent[name] += time.thread_time() - start
        for name, seconds in spent.items():
            times[name].append(seconds / len(paths))
    return DecodingReport(
        machine=machine,
        images=len(paths),
        megapixels=statistics.mean(each.shape[1] * each.shape[2] for each in truth) / 1e6,
        rounds=rounds,
        decoders=[
            Decoder(
                name,
                seconds=statistics.median(times[name]),
                ratio=statistics.median(
                    own / ours for own, ours in zip(times[name], times[OURS], strict=True)
                ),
                most_difference=differences[name],
            )
            for name in DECODERS
        ],
    )


def _ours(path: Path) -> Tensor:
    return F.pil_to_tensor(read_image(path))


def _pillow(path: Path) -> Tensor:
    with Image.open(path) as image:
        return F.pil_to_tensor(image.convert("RGB"))


def _draft(path: Path) -> Tensor:
    """Half the size out of the JPEG's own coefficients."""
    with Image.open(path) as image:
        image.draft("RGB", (image.width // 2, image.height // 2))
        return F.pil_to_tensor(image.convert("RGB"))


def _torchvision(path: Path) -> Tensor:
    # Deprecated since 0.29, in favor of another package.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)


DECODERS: dict[str, Callable[[Path], Tensor]] = {
    OURS: _ours,
    "Pillow": _pillow,
    "Pillow, draft of half the size": _draft,
    "torchvision": _torchvision,
}


def _most_difference(truth: Sequence[Tensor], found: Iterable[Tensor]) -> int | None:
    most = 0
    for expected, image in zip(truth, found, strict=True):
        if image.shape != expected.shape:
            return None
        most = max(most, int((image.to(torch.int16) - expected).abs().max()))
    return most
