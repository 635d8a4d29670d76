"""Compare readers of COCO annotations: time to open, memory in a data loader, and access.

A file is written with polygons of realistic lengths, by default of the size of COCO's train2017,
for which pycocotools takes some 10 GiB with 4 workers. Each reader opens it in a new process; the
readers take turns. Needs Linux, which says how much memory processes share.

    python benchmarks/data.py --rounds 5
    python benchmarks/data.py --images 5000 --instances 37000
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from botvision.benchmark.machine import describe_machine
from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.polygons import instance_mask
from botvision.processes import call_in_new_process

_SIZES = ((640, 480), (480, 640), (640, 427), (500, 375))
_CLASSES = 80
_CROWDS = 0.012  # COCO's fraction
_CHUNK = 10_000
_TIMED = 2000  # images whose records are timed
_DRAWN = 100  # images whose masks are timed


def write_annotation_file(path: Path, *, images: int, instances: int, seed: int = 0) -> None:
    """Write a COCO file; with 118,000 images and 860,000 instances it has train2017's size.

    Polygons have 26 points on average, most fewer and some hundreds, so that a record takes as many
    bytes as one of train2017; one instance in a hundred is a crowd, as run lengths.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.choice(_SIZES, images)
    image_ids = 9 + 5 * np.arange(images)
    encode = msgspec.json.encode
    categories = [{"id": i + 1, "name": f"class {i + 1}"} for i in range(_CLASSES)]
    records = [
        {
            "license": 1,
            "file_name": f"{number:012d}.jpg",
            "coco_url": f"http://images.invalid/train/{number:012d}.jpg",
            "height": height,
            "width": width,
            "date_captured": "2013-11-14 17:02:52",
            "id": number,
        }
        for number, (width, height) in zip(image_ids.tolist(), sizes.tolist(), strict=True)
    ]
    with path.open("wb") as file:
        file.write(b'{"info":{},"licenses":[],"images":' + encode(records) + b',"annotations":[')
        for start in range(0, instances, _CHUNK):
            chosen = rng.integers(0, images, min(_CHUNK, instances - start))
            drawn = _annotations(rng, start, image_ids[chosen], sizes[chosen])
            file.write((b"," if start else b"") + encode(drawn)[1:-1])
        file.write(b'],"categories":' + encode(categories) + b"}")


def _annotations(
    rng: np.random.Generator, start: int, image_ids: NDArray[Any], sizes: NDArray[Any]
) -> list[dict[str, Any]]:
    """Records of one polygon or crowd each."""
    number = len(image_ids)
    points = rng.lognormal(3.0, 0.75, number).astype(int).clip(3, 400)
    ends = points.cumsum()
    owners = np.repeat(np.arange(number), points)
    angles = 2 * np.pi * (np.arange(len(owners)) - (ends - points)[owners]) / points[owners]
    radius = rng.lognormal(3.5, 1, number).clip(3, 250)[owners] * rng.uniform(0.7, 1.1, len(owners))
    offsets = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners = (rng.random((number, 2)) * sizes)[owners] + offsets
    corners = corners.clip(0, sizes[owners]).round(2)
    low = np.minimum.reduceat(corners, ends - points)
    boxes = np.concatenate([low, np.maximum.reduceat(corners, ends - points) - low], axis=1)
    boxes[:, 2:] = boxes[:, 2:].clip(1)
    boxes = boxes.round(2)
    polygons = np.split(corners.ravel(), 2 * ends[:-1])
    crowds = rng.random(number) < _CROWDS
    records = []
    for i, (polygon, xywh) in enumerate(zip(polygons, boxes.tolist(), strict=True)):
        width, height = sizes[i].tolist()
        segmentation: Any = [polygon.tolist()]
        if crowds[i]:
            edges = np.unique(rng.integers(1, width * height, 300))
            counts = np.diff([0, *edges, width * height]).tolist()
            segmentation = {"size": [height, width], "counts": counts}
        records.append(
            {
                "segmentation": segmentation,
                "area": round(0.6 * xywh[2] * xywh[3], 4),
                "iscrowd": int(crowds[i]),
                "image_id": int(image_ids[i]),
                "bbox": xywh,
                "category_id": int(rng.integers(1, _CLASSES + 1)),
                "id": 100 + 3 * (start + i),
            }
        )
    return records


@dataclass
class Opened:
    """An annotation file that a reader has opened.

    Attributes:
        images: Number of images.
        records: Returns the records of the image at an index.
        mask: Returns the mask of a record of the image at an index.
    """

    images: int
    records: Callable[[int], list[dict[str, Any]]]
    mask: Callable[[int, dict[str, Any]], Any]


def _ours(path: Path) -> Opened:
    annotations = read_annotations(path)

    def mask(index: int, record: dict[str, Any]) -> Any:
        image = annotations.images[index]
        return instance_mask(record, image["height"], image["width"])

    return Opened(
        len(annotations.images),
        lambda index: annotations.instances[annotations.images[index]["id"]],
        mask,
    )


def _peer(module: str, path: Path) -> Opened:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = importlib.import_module(module).COCO(str(path))
    ids = coco.getImgIds()
    return Opened(
        len(ids),
        lambda index: coco.loadAnns(coco.getAnnIds(imgIds=[ids[index]])),
        lambda _, record: coco.annToMask(record),
    )


def _nothing() -> Opened:
    return Opened(1000, lambda _: [], lambda _, __: None)


# The second finds the cache that the first has left.
READERS: dict[str, str | None] = {
    "botvision, first time": None,
    "botvision, cached": None,
    "pycocotools": "pycocotools.coco",
    "faster-coco-eval": "faster_coco_eval",
}


def open_with(reader: str, path: Path) -> Opened:
    """Open a file with one of ``READERS``."""
    module = READERS[reader]
    return _ours(path) if module is None else _peer(module, path)


@dataclass
class Figures:
    """Figures of one process.

    Attributes:
        seconds: Seconds until the file was open.
        processor_seconds: Processor seconds until then.
        memory_bytes: Memory of the process and its workers after an epoch, shared pages counted
            once.
        item_seconds: Processor seconds to get the records of one image, for some images.
        mask_seconds: Processor seconds to draw the masks of one image, for some images.
    """

    seconds: float = 0.0
    processor_seconds: float = 0.0
    memory_bytes: int = 0
    item_seconds: list[float] = field(default_factory=list)
    mask_seconds: list[float] = field(default_factory=list)


def _measure(reader: str | None, path: Path, cache: Path, num_workers: int) -> Figures:
    """Open the file and, with workers, look at all of it; without a reader, at nothing."""
    os.environ["BOTVISION_CACHE"] = str(cache)
    opened, found = _nothing(), Figures()
    if reader is not None:
        if module := READERS[reader]:
            importlib.import_module(module)  # not timed
        started, processor = time.perf_counter(), time.process_time()
        opened = open_with(reader, path)
        found.seconds = time.perf_counter() - started
        found.processor_seconds = time.process_time() - processor
    if num_workers:
        found.memory_bytes = _memory_of_loader(opened, num_workers)
        chosen = random.Random(0).sample(range(opened.images), min(_TIMED, opened.images))
        # Reading a page of the file for the first time is not timed.
        for timed in ([], found.item_seconds):
            for index in chosen:
                started = time.thread_time()
                opened.records(index)
                timed.append(time.thread_time() - started)
        for index in chosen[:_DRAWN]:
            records = opened.records(index)
            started = time.thread_time()
            for record in records:
                opened.mask(index, record)
            found.mask_seconds.append(time.thread_time() - started)
    return found


class _Records(Dataset[int]):
    """Looks at all numbers of an image's records, as drawing their masks does."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def __len__(self) -> int:
        return self._opened.images

    def __getitem__(self, index: int) -> int:
        records = self._opened.records(index)
        for record in records:
            segmentation = record["segmentation"]
            crowd = isinstance(segmentation, dict)
            for numbers in [segmentation["counts"]] if crowd else segmentation:
                np.asarray(numbers)
            np.asarray(record["bbox"])
        return len(records)


def _memory_of_loader(opened: Opened, num_workers: int) -> int:
    """Bytes of this process and its workers after an epoch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(
            _Records(opened),
            batch_size=64,
            shuffle=True,
            num_workers=num_workers,
            multiprocessing_context="fork",
            persistent_workers=True,
        )
        for _ in loader:
            pass
    children = [child.pid for child in multiprocessing.active_children()]
    return sum(map(_proportional_set_size, [os.getpid(), *filter(None, children)]))


def _proportional_set_size(process: int) -> int:
    """Resident bytes of a process, each page divided by the number of processes that share it."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _summary(rounds: list[Figures], bare: Figures) -> dict[str, float]:
    last = rounds[-1]
    return {
        "open_seconds": statistics.median(each.seconds for each in rounds),
        "open_processor_seconds": statistics.median(each.processor_seconds for each in rounds),
        "memory_bytes": last.memory_bytes,
        "added_bytes": last.memory_bytes - bare.memory_bytes,
        "item_seconds": statistics.median(last.item_seconds),
        "slow_item_seconds": statistics.quantiles(last.item_seconds, n=100, method="inclusive")[-1],
        "mask_seconds": statistics.median(last.mask_seconds),
    }


_COLUMNS = {
    "open_seconds": ("open s", 1, ".2f"),
    "open_processor_seconds": ("CPU s", 1, ".2f"),
    "memory_bytes": ("memory MiB", 2**-20, ".0f"),
    "added_bytes": ("added MiB", 2**-20, ".0f"),
    "item_seconds": ("item ms", 1e3, ".3f"),
    "slow_item_seconds": ("99% ms", 1e3, ".3f"),
    "mask_seconds": ("+masks ms", 1e3, ".2f"),
}


def main(
    images: Annotated[int, typer.Option(min=1, help="Images of the file.")] = 118_000,
    instances: Annotated[int, typer.Option(min=1, help="Instances of the file.")] = 860_000,
    num_workers: Annotated[int, typer.Option(min=1, help="Workers of the data loader.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Openings by each reader.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare readers of COCO annotations: time to open, memory in a data loader, and access."""
    machine = describe_machine("cpu")
    figures: dict[str, list[Figures]] = {name: [] for name in READERS}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "annotations.json")
        write_annotation_file(path, images=images, instances=instances)
        size = path.stat().st_size
        for number in range(rounds):
            workers = num_workers if number == rounds - 1 else 0
            cache = Path(folder, f"cache{number}")
            for name, found in figures.items():
                try:
                    found.append(call_in_new_process(_measure, name, path, cache, workers))
                except (MemoryError, RuntimeError) as error:
                    failures[name] = f"{type(error).__name__}: {error}"
        bare = call_in_new_process(_measure, None, path, Path(folder), num_workers)
    readers = {name: _summary(each, bare) for name, each in figures.items() if name not in failures}
    if as_json:
        report = {"machine": asdict(machine), "file_bytes": size, "readers": readers}
        print(json.dumps({**report, "failures": failures}))
        return
    notes = [f"{name}: {reason}" for name, reason in failures.items()]
    caption = "\n".join([f"{size / 2**20:.0f} MiB as JSON", machine.title(), *notes])
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), caption=caption)
    for title in ("reader", *(title for title, _, _ in _COLUMNS.values())):
        table.add_column(title, no_wrap=title == "reader")
    for name, row in readers.items():
        cells = (f"{row[key] * unit:{form}}" for key, (_, unit, form) in _COLUMNS.items())
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
