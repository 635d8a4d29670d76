"""The run folder: names and formats of the files of a run."""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from botvision.errors import BotvisionError
from botvision.files import leftovers, replacing, write_json, write_table

_PACKAGES = ("botvision", "torch", "torchvision", "timm", "accelerate", "faster-coco-eval")


class RunFolder:
    """The files of one training run; the README lists them.

    Args:
        path: Path of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.metrics = path / "metrics.jsonl"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.state = path / "state" / "training.pt"
        self._lock = path / "state" / "lock"

    @classmethod
    def create(cls, path: Path, recipe: dict[str, Any]) -> "RunFolder":
        """Create the folder with ``recipe.yaml`` and ``environment.json``.

        Raises:
            BotvisionError: If it exists.
        """
        try:
            path.mkdir(parents=True)
        except FileExistsError as error:
            raise run_folder_exists(path) from error
        folder = cls(path)
        folder.state.parent.mkdir()
        folder.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False))
        write_json(path / "environment.json", _environment())
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open the folder of an earlier run.

        Raises:
            BotvisionError: If the path is no run folder.
        """
        folder = cls(path)
        if not folder.recipe.is_file():
            raise BotvisionError(f"{path}: expected a run folder with recipe.yaml, got none")
        return folder

    def nothing_saved(self) -> bool:
        """Return whether the run ended before it saved a state or weights."""
        return not any(path.exists() for path in (self.state, self.best, self.last))

    def discard_unused(self) -> None:
        """Remove the folder of a run that failed before its first step."""
        if self.nothing_saved() and not self.metrics.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run, so that no other process trains it at the same time.

        Has no effect on systems and file systems without locks.

        Raises:
            BotvisionError: If another process holds it.
        """
        with self._lock.open("a+") as lock:
            try:
                import fcntl

                # Not flock, which data workers inherit and may keep after this process is killed.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                lock.seek(0)
                raise BotvisionError(
                    f"{self.path}: the run is being trained by {lock.read() or 'another process'}; "
                    "wait until it ends, or end it"
                ) from error
            except (ImportError, OSError):  # a system or file system without locks
                pass
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}")
            lock.flush()
            yield

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl``, up to one that a crash cut short."""
        if not self.metrics.is_file():
            return []
        records = []
        for line in self.metrics.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def rewind(self, step: int, evaluated: int) -> None:
        """Remove the lines of steps that will be repeated, and half-written files.

        Args:
            step: Number of steps done.
            evaluated: Step of the last evaluation done.
        """
        kept = [
            record
            for record in self.history()
            if record["step"] <= (evaluated if "metrics" in record else step)
        ]
        with replacing(self.metrics) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        for left in (*leftovers(self.state), *leftovers(self.best), *leftovers(self.last)):
            left.unlink()

    def write_csv(self) -> None:
        """Write ``results.csv`` with one row per evaluation in ``metrics.jsonl``."""
        rows = [record for record in self.history() if "metrics" in record]
        columns = ["epoch", "step", *(rows[0]["metrics"] if rows else ())]
        values = ([row["epoch"], row["step"], *row["metrics"].values()] for row in rows)
        write_table(self.path / "results.csv", columns, values)

    def last_metrics(self) -> dict[str, Any]:
        """Return the metrics of the last evaluation in ``metrics.jsonl``.

        Raises:
            BotvisionError: If there was no evaluation.
        """
        evaluations = [record["metrics"] for record in self.history() if "metrics" in record]
        if not evaluations:
            raise BotvisionError(f"{self.path}: the run is complete but was never evaluated")
        last: dict[str, Any] = evaluations[-1]
        return last


def run_folder_exists(path: Path) -> BotvisionError:
    """Return the error of a new run in an existing folder."""
    return BotvisionError(f"{path}: the run folder exists; choose another name, or resume the run")


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "command": run_command(),
    }


def run_command() -> list[str]:
    """Return the command line of this process, without the folder of its program."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
