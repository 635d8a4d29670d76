"""Measure how long training steps wait for shards from a slow web server, prefetched or not.

The server runs in this process; the steps do nothing. By default a connection takes as long for a
shard as the step that uses it up.

    python benchmarks/shards.py --rate 1
"""

import http.server
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from botvision.benchmark.machine import describe_machine
from botvision.datasets.loading import load_batches
from botvision.shards.index import read_index
from botvision.shards.mirror import open_data_folder
from botvision.shards.read import ShardedImages
from botvision.shards.write import Sample, write_manifest, write_shards
from botvision.training.sampling import BatchPlan, StepBatches

_IMAGES = 64  # of a shard, and of a batch
_CHUNK = 2**14


class _Contents(Dataset[bytes]):
    """Encoded images as bytes."""

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
    address: str, load: Callable[..., Generator[Any]], shards: int, step: float, num_workers: int
) -> dict[str, float]:
    """Seconds waited for batches, for the first of them, and of the whole epoch."""
    data = _Contents(open_data_folder(address))
    batches = StepBatches(
        len(data),
        BatchPlan(micro_batch_size=_IMAGES, processes=1, accumulation=1, lr_factor=1.0),
        1,
        seed=0,
        shard_lengths=[_IMAGES] * shards,
    )
    waits = []
    began = asked = time.perf_counter()
    with closing(load(data, batches, collate=list, num_workers=num_workers)) as loaded:
        for _ in loaded:
            waits.append(time.perf_counter() - asked)
            time.sleep(step)
            asked = time.perf_counter()
    return {"waited": sum(waits), "first": waits[0], "seconds": time.perf_counter() - began}


def _load_plainly(
    data: _Contents, batches: Iterable[list[Any]], *, collate: Callable[..., Any], num_workers: int
) -> Generator[Any]:
    yield from DataLoader(data, batch_sampler=batches, collate_fn=collate, num_workers=num_workers)


LOADERS = {
    "fetched when needed": _load_plainly,
    "prefetched": load_batches,
    "in the cache": load_batches,
}


def _write(folder: Path, shards: int) -> None:
    folder.mkdir()
    # Each image takes a block for its header, as does its label.
    size = 2**20 // _IMAGES - 3 * 512
    noise = random.Random(0)
    samples = (
        Sample(f"{number}.jpg", noise.randbytes(size), (".cls", b"0"))
        for number in range(shards * _IMAGES)
    )
    write_shards(folder, samples, shard_size=2**20)
    write_manifest(folder)


@contextmanager
def _served(folder: Path, rate: float, latency: float) -> Iterator[str]:
    """Address of a slow server of the folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            time.sleep(latency)
            with suppress(ConnectionError):  # the client needs it no longer
                while chunk := source.read(_CHUNK):
                    time.sleep(len(chunk) / (rate * 2**20))
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


def main(
    shards: Annotated[int, typer.Option(min=1, help="Shards, of 1 MiB each.")] = 40,
    rate: Annotated[float, typer.Option(min=0.001, help="MiB/s of each connection.")] = 2.0,
    latency: Annotated[float, typer.Option(min=0, help="Seconds until the server answers.")] = 0.1,
    step: Annotated[float, typer.Option(min=0, help="Seconds of a step, one per shard.")] = 0.6,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that read.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how long steps wait for shards from a slow web server, prefetched or not."""
    machine = describe_machine("cpu")
    epochs = {}
    with tempfile.TemporaryDirectory() as name:
        origin, cache = Path(name, "origin"), Path(name, "cache")
        os.environ["BOTVISION_CACHE"] = str(cache)
        _write(origin, shards)
        with _served(origin, rate, latency) as address:
            for title, load in LOADERS.items():
                if title != "in the cache":
                    shutil.rmtree(cache, ignore_errors=True)
                epochs[title] = _epoch(address, load, shards, step, num_workers)
    if as_json:
        print(json.dumps({"machine": asdict(machine), "epochs": epochs}))
        return
    table = Table("shards", "waited s", "of it at first", "epoch s", caption=machine.title())
    for title, epoch in epochs.items():
        table.add_row(title, *(f"{seconds:.1f}" for seconds in epoch.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
