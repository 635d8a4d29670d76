"""Opening a large annotation file, the memory it takes in a data loader, and access to it."""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from botvision.benchmark.annotation_file import write_annotation_file
from botvision.benchmark.annotation_readers import READERS, Opening, measure_reader
from botvision.benchmark.environment import environment
from botvision.benchmark.machine import Machine, describe_machine
from botvision.errors import BotvisionError

_WITHOUT = "no annotations"


@dataclass(frozen=True)
class DataSettings:
    """What to measure.

    Attributes:
        images: Of the file.
        instances: Of the file.
        num_workers: Of the data loader.
        rounds: Openings by each reader.
    """

    images: int
    instances: int
    num_workers: int
    rounds: int


@dataclass(frozen=True)
class Reader:
    """Figures of one way to read annotations; None where there is none.

    Attributes:
        name: Of the package, and for ours whether it was the first opening.
        open_seconds: Median time until the file is open.
        open_processor_seconds: Median time at work until then.
        memory_bytes: Of a process that opened it and its num_workers, after an epoch in which these
            looked at every record; shared pages are counted once.
        added_bytes: The same over that of processes without annotations.
        item_seconds: Median time at work to get the records of one image, in one process.
        slow_item_seconds: What 99% of the images stay under.
        mask_seconds: Median time at work to draw the masks of one image's records.
        unavailable: Why there are no figures.
    """

    name: str
    open_seconds: float | None = None
    open_processor_seconds: float | None = None
    memory_bytes: int | None = None
    added_bytes: int | None = None
    item_seconds: float | None = None
    slow_item_seconds: float | None = None
    mask_seconds: float | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class DataReport:
    """What ``botvision benchmark data`` found.

    Attributes:
        machine: That it ran on.
        settings: What was asked for.
        file_bytes: Size of the annotation file.
        readers: One for each way to read it.
    """

    machine: Machine
    settings: DataSettings
    file_bytes: int
    readers: list[Reader]


def benchmark_data(
    settings: DataSettings, folder: Path, *, progress: Callable[[str], None]
) -> DataReport:
    """Compare readers of COCO annotations on a file written for it.

    Each opening is that of a fresh process; the readers take turns. Memory is taken once of each.

    Args:
        settings: What to measure.
        folder: Where the file and our cache lie meanwhile.
        progress: Is told what is going on.

    Raises:
        BotvisionError: On systems that do not say what memory processes share.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise BotvisionError("benchmark data: needs Linux: /proc/self/smaps_rollup is not there")
    machine = describe_machine("cpu")
    openings: dict[str, list[Opening | str]] = {name: [] for name in (_WITHOUT, *READERS)}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "annotations.json"
        progress("writing the annotation file")
        write_annotation_file(path, images=settings.images, instances=settings.instances)
        for number in range(settings.rounds):
            last = number == settings.rounds - 1
            cache = Path(temporary) / f"cache{number}"
            for name, results in openings.items():
                if name == _WITHOUT and not last:
                    continue
                progress(f"round {number + 1} of {settings.rounds}: {name}")
                run = partial(measure_reader, None if name == _WITHOUT else name, path)
                with environment(BOTVISION_CACHE=str(cache)):
                    results.append(run(settings.num_workers if last else 0))
        size = path.stat().st_size
    (bare,) = openings.pop(_WITHOUT)
    if isinstance(bare, str):
        raise BotvisionError(f"benchmark data: the data loader: {bare}")
    readers = [_summary(name, results, bare) for name, results in openings.items()]
    return DataReport(machine, settings, size, readers)


def _summary(name: str, results: list[Opening | str], bare: Opening) -> Reader:
    openings = []
    for result in results:
        if isinstance(result, str):
            return Reader(name, unavailable=result)
        openings.append(result)
    last = openings[-1]
    assert last.memory_bytes is not None
    assert bare.memory_bytes is not None
    slowest = statistics.quantiles(last.item_seconds, n=100, method="inclusive")[-1]
    return Reader(
        name,
        open_seconds=statistics.median(each.seconds for each in openings),
        open_processor_seconds=statistics.median(each.processor_seconds for each in openings),
        memory_bytes=last.memory_bytes,
        added_bytes=last.memory_bytes - bare.memory_bytes,
        item_seconds=statistics.median(last.item_seconds),
        slow_item_seconds=slowest,
        mask_seconds=statistics.median(last.mask_seconds),
    )
