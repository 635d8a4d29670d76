"""Measure the memory of predictions of large photographs above that of the loaded model.

Ten JPEGs, three of 12 and seven of 24 megapixels, are predicted in batches of up to eight, each way
in a process of its own.

    python benchmarks/prediction_memory.py --weights runs/demo/run/best.safetensors
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from botvision.predict.files import predict_files
from botvision.predict.loading import load
from botvision.processes import call_in_new_process, peak_memory
from botvision.tasks.predictor import Predictor

_SIZES = (*[(4000, 3000)] * 3, *[(6000, 4000)] * 7)
_MIB = 2**20


def _files(predictor: Predictor[Any], paths: Sequence[Path], output: Path) -> None:
    predict_files(predictor, paths, output)


def _list(predictor: Predictor[Any], paths: Sequence[Path], _: Path) -> None:
    predictor([*paths])


def _stream(predictor: Predictor[Any], paths: Sequence[Path], _: Path) -> None:
    for _each in predictor.stream(paths):
        pass


_WAYS: dict[str, Callable[[Predictor[Any], Sequence[Path], Path], None]] = {
    "predict_files": _files,
    "a list of paths to botvision.load(...)": _list,
    "stream": _stream,
}


def measure(weights: str, way: str, paths: Sequence[Path], output: Path) -> int:
    """Return the bytes by which a process grows over what it holds after a small image."""
    predictor = load(weights)
    predictor(np.zeros((64, 64, 3), np.uint8))
    before = peak_memory()
    _WAYS[way](predictor, paths, output)
    return peak_memory() - before


def main(weights: Annotated[str, typer.Option(help="Weights file of a detector.")]) -> None:
    """Measure and tabulate; see the module."""
    table = Table("way", "MiB above the loaded model")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{number}.jpg" for number in range(len(_SIZES))]
        for path, size in zip(paths, _SIZES, strict=True):
            Image.effect_noise(size, 40).convert("RGB").save(path)
        for way in _WAYS:
            grown = call_in_new_process(measure, weights, way, paths, folder / "out")
            table.add_row(way, f"{grown / _MIB:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
