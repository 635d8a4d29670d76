"""Waiting for shards that come from a web server, fetched ahead or when they are asked for."""

import http.server
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from botvision.benchmark.environment import environment
from botvision.benchmark.machine import Machine, describe_machine
from botvision.datasets.loading import load_batches
from botvision.shards.index import read_index
from botvision.shards.mirror import open_data_folder
from botvision.shards.read import ShardedImages
from botvision.shards.write import Sample, write_manifest, write_shards
from botvision.training.sampling import BatchPlan, StepBatches

_IMAGES = 64  # of a shard, and of a batch
_CHUNK = 2**14


@dataclass(frozen=True)
class ShardsSettings:
    """What to measure.

    Attributes:
        shards: Of 1 MiB; as many batches are read.
        rate: MiB a second of each connection to the server.
        latency: Seconds until the server answers.
        step: Seconds between two batches, in which nothing is done.
        num_workers: Processes that read.
    """

    shards: int
    rate: float
    latency: float
    step: float
    num_workers: int


@dataclass(frozen=True)
class Epoch:
    """An epoch over the shards.

    Attributes:
        name: Where the shards come from.
        waited: Seconds that the steps waited for batches.
        first: Those of them before the first batch.
        seconds: Of the whole epoch.
    """

    name: str
    waited: float
    first: float
    seconds: float


@dataclass(frozen=True)
class ShardsReport:
    """What ``botvision benchmark shards`` found.

    Attributes:
        machine: That it ran on.
        settings: What was asked for.
        epochs: One for each way.
    """

    machine: Machine
    settings: ShardsSettings
    epochs: list[Epoch]


def benchmark_shards(
    settings: ShardsSettings, folder: Path, *, progress: Callable[[str], None]
) -> ShardsReport:
    """Read an epoch from a slow web server of this process, in each way.

    Args:
        settings: What to measure.
        folder: For the shards, meanwhile.
        progress: Is told what is going on.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        origin, cache = Path(name, "origin"), Path(name, "cache")
        progress("writing shards")
        _write(origin, settings.shards)
        with (
            environment(BOTVISION_CACHE=str(cache)),
            _served(origin, settings) as address,
        ):
            epochs = []
            for way, load in (
                ("fetched when asked for", _load_plainly),
                ("fetched ahead", load_batches),
                ("in the cache", load_batches),
            ):
                if way != "in the cache":
                    shutil.rmtree(cache, ignore_errors=True)
                progress(way)
                epochs.append(_epoch(way, address, load, settings))
    return ShardsReport(describe_machine("cpu"), settings, epochs)


class _Contents(Dataset[bytes]):
    """The files of images, not looked into."""

    def __init__(self, folder: Path) -> None:
        self._images = ShardedImages(folder, read_index(folder))
        self.shard_files = self._images.files

    def shard(self, index: int) -> int:
        return index // _IMAGES

    def __len__(self) -> int:
        return len(self._images.names)

    def __getitem__(self, key: tuple[int, int]) -> bytes:
        return self._images.content(self._images.names[key[1]])


def _epoch(
    name: str,
    address: str,
    load: Callable[..., Generator[Any, None, None]],
    settings: ShardsSettings,
) -> Epoch:
    data = _Contents(open_data_folder(address))
    batches = StepBatches(
        len(data),
        BatchPlan(micro_batch_size=_IMAGES, processes=1, accumulation=1, rate_factor=1.0),
        1,
        seed=0,
        shard_lengths=[_IMAGES] * settings.shards,
    )
    waits = []
    began = asked = time.perf_counter()
    with closing(load(data, batches, collate=list, num_workers=settings.num_workers)) as loaded:
        for _ in loaded:
            waits.append(time.perf_counter() - asked)
            time.sleep(settings.step)
            asked = time.perf_counter()
    return Epoch(name, waited=sum(waits), first=waits[0], seconds=time.perf_counter() - began)


def _load_plainly(
    data: _Contents, batches: Iterable[list[Any]], *, collate: Callable[..., Any], num_workers: int
) -> Generator[Any, None, None]:
    yield from DataLoader(data, batch_sampler=batches, collate_fn=collate, num_workers=num_workers)


def _write(folder: Path, shards: int) -> None:
    folder.mkdir()
    # An image takes a block for its header, as does the byte beside it that it comes with.
    size = 2**20 // _IMAGES - 3 * 512
    noise = random.Random(0)
    samples = (
        Sample(f"{number}.jpg", partial(noise.randbytes, size), (".cls", b"0"))
        for number in range(shards * _IMAGES)
    )
    write_shards(folder, samples, shard_size=2**20)
    write_manifest(folder)


@contextmanager
def _served(folder: Path, settings: ShardsSettings) -> Iterator[str]:
    """The address of a server of the folder that is as slow as was asked for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            time.sleep(settings.latency)
            with suppress(ConnectionError):  # whoever asked needs it no longer
                while chunk := source.read(_CHUNK):
                    time.sleep(len(chunk) / (settings.rate * 2**20))
                    outputfile.write(chunk)

        def log_message(self, *arguments: Any) -> None:
            pass

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
