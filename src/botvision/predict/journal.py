"""The journal of a prediction: a line per image, from which an interrupted one goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botvision.errors import BotvisionError
from botvision.files import quoted

JOURNAL_NAME = "predictions.jsonl"
PARTIAL_NAME = "predictions.partial.jsonl"
"""Name of the journal until the prediction is finished."""

Record = dict[str, Any]
_REASON = "reason"


class Journal:
    """Results of a prediction as JSON lines; the first one says what is predicted with what.

    Args:
        folder: Output folder of the prediction; made with the first record.
        header: Weights, options and images, ready for JSON. An unfinished journal in the folder
            with the same header is gone on with.

    Attributes:
        done: Names of the images whose records are there.

    Raises:
        BotvisionError: If an unfinished journal has another header.
    """

    def __init__(self, folder: Path, header: Record) -> None:
        self._folder = folder
        self._partial = folder / PARTIAL_NAME
        self._header = json.dumps(header)
        self.done: set[str] = set()
        if self._partial.exists():
            self._go_on()

    def _go_on(self) -> None:
        with self._partial.open("rb") as file:
            first = file.readline()
            if first and first.strip() != self._header.encode():
                raise BotvisionError(
                    f"output {self._folder}: holds an interrupted prediction of other images, "
                    "weights or options; choose another folder, or remove "
                    f"{quoted(self._partial)} to begin again"
                )
            whole = len(first)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # a crash cut it short
                self.done.add(json.loads(line)["file_name"])
                whole += len(line)
        if not first.endswith(b"\n"):
            self._partial.unlink()
            return
        with self._partial.open("r+b") as file:
            file.truncate(whole)

    def add(self, record: Record) -> None:
        """Write the record of an image, with its path as ``file_name``."""
        if not self._partial.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._partial.write_text(self._header + "\n")
        with self._partial.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.done.add(record["file_name"])

    def skip(self, name: str, reason: str) -> None:
        """Write that an image could not be read."""
        self.add({"file_name": name, _REASON: reason})

    def records(self) -> Iterator[Record]:
        """Yield the records of images that were read, in the order in which they were written."""
        return (record for record in self._lines() if _REASON not in record)

    def skipped(self) -> list[Record]:
        """Return ``file_name`` and ``reason`` of the images that could not be read."""
        return [record for record in self._lines() if _REASON in record]

    def _lines(self) -> Iterator[Record]:
        path = self._partial if self._partial.exists() else self._folder / JOURNAL_NAME
        with path.open() as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def finish(self) -> None:
        """Give the journal its final name."""
        self._partial.replace(self._folder / JOURNAL_NAME)
