"""Readers of COCO annotations, each measured in a process of its own."""

import contextlib
import io
import multiprocessing
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from botvision.benchmark.measuring import reason_of
from botvision.datasets.coco.annotations import instance_mask, read_annotations

_TIMED = 2000  # images whose records are timed
_DRAWN = 100  # images whose masks are timed

Record = dict[str, Any]
Mask = NDArray[np.uint8]


@dataclass
class Opened:
    """An annotation file, opened.

    Attributes:
        images: Number of images.
        records: Records of the image at a place.
        mask: Mask of a record of the image at a place.
    """

    images: int
    records: Callable[[int], list[Record]]
    mask: Callable[[int, Record], Mask]


@dataclass
class Opening:
    """What one process measured.

    Attributes:
        seconds: Until the file was open.
        processor_seconds: Of those, at work.
        memory_bytes: Of the process and its num_workers, if it had any.
        item_seconds: At work for the records of an image, of each of some images.
        mask_seconds: At work to draw the masks of an image, of each of some images.
    """

    seconds: float = 0.0
    processor_seconds: float = 0.0
    memory_bytes: int | None = None
    item_seconds: list[float] = field(default_factory=list)
    mask_seconds: list[float] = field(default_factory=list)


def _ours(path: Path) -> Opened:
    annotations = read_annotations(path)

    def records(place: int) -> list[Record]:
        return annotations.instances[annotations.images[place]["id"]]

    def mask(place: int, record: Record) -> Mask:
        image = annotations.images[place]
        return instance_mask(record, image["height"], image["width"])

    return Opened(len(annotations.images), records, mask)


def _peer(coco: Any) -> Opened:
    ids = coco.getImgIds()

    def records(place: int) -> list[Record]:
        found: list[Record] = coco.loadAnns(coco.getAnnIds(imgIds=[ids[place]]))
        return found

    def mask(_: int, record: Record) -> Mask:
        drawn: Mask = coco.annToMask(record)
        return drawn

    return Opened(len(ids), records, mask)


def _pycocotools(path: Path) -> Opened:
    from pycocotools.coco import COCO  # type: ignore[import-untyped]

    with contextlib.redirect_stdout(io.StringIO()):
        return _peer(COCO(path))


def _faster_coco_eval(path: Path) -> Opened:
    from faster_coco_eval import COCO

    return _peer(COCO(str(path)))


READERS: dict[str, Callable[[Path], Opened]] = {
    "botvision, first time": _ours,
    "botvision, cached": _ours,
    "pycocotools": _pycocotools,
    "faster-coco-eval": _faster_coco_eval,
}
"""Ways to open a file; the second needs the cache that the first has left."""


def measure_reader(name: str | None, path: Path, num_workers: int) -> Opening | str:
    """Open a file in a fresh process, and look at all of it in workers of that process.

    Args:
        name: One of ``READERS``; without one, the workers have nothing to look at.
        path: The annotation file.
        num_workers: Processes of the data loader; without any only the time to open is taken.

    Returns:
        What was measured, or why nothing was.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, name, path, num_workers))
    process.start()
    sender.close()
    with receiver:
        try:
            result: Opening | str = receiver.recv()
        except EOFError:
            process.join()
            killed = process.exitcode == -signal.SIGKILL
            result = "out of memory" if killed else f"ended with status {process.exitcode}"
    process.join()
    return result


def _send(connection: Any, name: str | None, path: Path, num_workers: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends
    try:
        connection.send(_measure(name, path, num_workers))
    except ModuleNotFoundError as error:
        connection.send(f"not installed: {error.name}")
    except Exception as error:
        connection.send(reason_of(error))


def _measure(name: str | None, path: Path, num_workers: int) -> Opening:
    opened, result = _nothing(), Opening()
    if name is not None:
        _import(name)
        started, at_work = time.perf_counter(), time.process_time()
        opened = READERS[name](path)
        result.seconds = time.perf_counter() - started
        result.processor_seconds = time.process_time() - at_work
    if num_workers:
        result.memory_bytes = _memory_of_loader(opened, num_workers)
        chosen = random.Random(0).sample(range(opened.images), min(_TIMED, opened.images))
        # Reading a page of the file for the first time is left out of the times.
        for timed in ([], result.item_seconds):
            for place in chosen:
                started = time.thread_time()
                opened.records(place)
                timed.append(time.thread_time() - started)
        for place in chosen[:_DRAWN]:
            records = opened.records(place)
            started = time.thread_time()
            for record in records:
                opened.mask(place, record)
            result.mask_seconds.append(time.thread_time() - started)
    return result


def _nothing() -> Opened:
    return Opened(1000, lambda _: [], lambda _, __: np.zeros((1, 1), np.uint8))


def _import(name: str) -> None:
    """Imports are no part of opening a file."""
    if name == "pycocotools":
        import pycocotools.coco  # type: ignore[import-untyped] # noqa: F401
    elif name == "faster-coco-eval":
        import faster_coco_eval  # noqa: F401


class _Looks(Dataset[int]):
    """Looks at all numbers of an image's records, as whoever draws masks of them does."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def __len__(self) -> int:
        return self._opened.images

    def __getitem__(self, place: int) -> int:
        records = self._opened.records(place)
        for record in records:
            segmentation = record["segmentation"]
            for numbers in (
                [segmentation["counts"]] if isinstance(segmentation, dict) else segmentation
            ):
                np.asarray(numbers)
            np.asarray(record["bbox"])
        return len(records)


def _memory_of_loader(opened: Opened, num_workers: int) -> int:
    """Bytes of this process and its workers after an epoch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[int] = DataLoader(
            _Looks(opened),
            batch_size=64,
            shuffle=True,
            num_workers=num_workers,
            multiprocessing_context="fork",
            persistent_workers=True,
        )
        for _ in loader:
            pass
    children = [child.pid for child in multiprocessing.active_children()]
    return sum(map(_shared_once, [os.getpid(), *filter(None, children)]))


def _shared_once(process: int) -> int:
    """Resident bytes of a process, each page divided by the number of those that share it."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/{process}/smaps_rollup: no Pss")
