"""Compare the time to decode JPEG images: botvision, Pillow, Pillow's draft mode and torchvision.

Thread time of one thread; the decoders take turns at each image.

    python benchmarks/decoding.py --data COCO
"""

import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2 import functional as F

from botvision.benchmark.machine import describe_machine
from botvision.images.decode import read_image
from botvision.images.find import find_images


def _ours(path: Path) -> Tensor:
    return F.pil_to_tensor(read_image(path))


def _pillow(path: Path) -> Tensor:
    with Image.open(path) as image:
        return F.pil_to_tensor(image.convert("RGB"))


def _draft(path: Path) -> Tensor:
    """Decode at half the size, from the JPEG's own coefficients."""
    with Image.open(path) as image:
        image.draft("RGB", (image.width // 2, image.height // 2))
        return F.pil_to_tensor(image.convert("RGB"))


def _torchvision(path: Path) -> Tensor:
    # Deprecated since 0.29, in favor of another package.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)


OURS = "botvision"
DECODERS: dict[str, Callable[[Path], Tensor]] = {
    OURS: _ours,
    "Pillow": _pillow,
    "Pillow, draft of half the size": _draft,
    "torchvision": _torchvision,
}


def benchmark(folder: Path, rounds: int) -> dict[str, Any]:
    """Decode all JPEG images of a folder with all decoders, in turns.

    Args:
        folder: Folder of the images, subfolders included.
        rounds: Number of times that each image is decoded, after one that does not count.

    Returns:
        Machine, images, mean megapixels, rounds, and for each decoder the median seconds per
        image, their ratio to ours and the largest difference of a value, 0 to 255, from Pillow's
        (None where the size differs).

    Raises:
        ValueError: If the folder holds no JPEG images.
    """
    machine = describe_machine("cpu")
    paths = [path for path in find_images(folder).paths if path.suffix.lower() in (".jpg", ".jpeg")]
    if not paths:
        raise ValueError(f"{folder}: holds no JPEG images")
    truth = [_pillow(path) for path in paths]
    differences = {
        name: _largest_difference(truth, map(decode, paths)) for name, decode in DECODERS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in DECODERS}
    for _ in range(rounds):
        spent = dict.fromkeys(DECODERS, 0.0)
        for path in paths:
            for name, decode in DECODERS.items():
                start = time.thread_time()
                decode(path)
                spent[name] += time.thread_time() - start
        for name, seconds in spent.items():
            times[name].append(seconds / len(paths))
    return {
        "machine": asdict(machine),
        "title": machine.title(),
        "images": len(paths),
        "megapixels": statistics.mean(each.shape[1] * each.shape[2] for each in truth) / 1e6,
        "rounds": rounds,
        "decoders": [
            {
                "name": name,
                "seconds": statistics.median(own),
                "ratio": statistics.median(a / b for a, b in zip(own, times[OURS], strict=True)),
                "largest_difference": differences[name],
            }
            for name, own in times.items()
        ],
    }


def _largest_difference(truth: Sequence[Tensor], found: Iterable[Tensor]) -> int | None:
    largest = 0
    for expected, image in zip(truth, found, strict=True):
        if image.shape != expected.shape:
            return None
        largest = max(largest, int((image.to(torch.int16) - expected).abs().max()))
    return largest


def main(
    data: Annotated[Path, typer.Option(help="Folder with JPEG images.")],
    rounds: Annotated[int, typer.Option(min=1, help="Times to decode each image.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the time to decode JPEG images: botvision, Pillow, its draft mode, torchvision."""
    report = benchmark(data, rounds)
    if as_json:
        print(json.dumps(report))
        return
    table = Table("", "ms per image", "ratio", "largest difference", caption=report["title"])
    for row in report["decoders"]:
        difference = row["largest_difference"]
        shown = "other size" if difference is None else str(difference)
        table.add_row(row["name"], f"{1e3 * row['seconds']:.2f}", f"{row['ratio']:.2f}", shown)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
