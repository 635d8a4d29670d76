"""Speed of a prediction of files beside that of the model alone."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.precision import autocast
from botvision.predict.files import predict_files
from botvision.tasks.detection.detectors.transform import unpasted_masks
from botvision.tasks.predictor import Predictor

_MOST_IN_MEMORY = 256


@dataclass(frozen=True)
class PredictionSpeed:
    """Images per second of a part, medians over the rounds.

    Attributes:
        images: Number of images of a round.
        batch_size: Images per batch.
        rounds: Number of rounds.
        threads: Threads of the model.
        model: Of the model alone, on images that are in memory as tensors.
        results: Of a prediction of the files with results alone.
        overlays: Of a prediction with results and overlays.
    """

    images: int
    batch_size: int
    rounds: int
    threads: int
    model: float
    results: float
    overlays: float


def benchmark_prediction(
    predictor: Predictor[Any],
    paths: Sequence[Path],
    *,
    batch_size: int = 8,
    rounds: int = 3,
    progress: Callable[[str], None] | None = None,
) -> PredictionSpeed:
    """Measure a detector alone, and a prediction of files with and without overlays, in turns.

    Args:
        predictor: A detector, see ``load``.
        paths: Images of one size, of which the first 256 are taken.
        batch_size: Images per batch.
        rounds: Number of rounds; one more comes first and does not count.
        progress: Called with a line before each round.

    Raises:
        BotvisionError: If the model is no detector, or the images differ in size.
    """
    if not hasattr(predictor.model, "transform"):
        raise BotvisionError(f"weights: expected a detector, got a model for {predictor.task}")
    paths = list(dict.fromkeys(paths))[:_MOST_IN_MEMORY]
    pixels = [
        F.to_dtype(F.pil_to_tensor(read_image(path)), torch.float32, scale=True) for path in paths
    ]
    sizes = {tuple(each.shape[1:]) for each in pixels}
    if len(sizes) > 1:
        raise BotvisionError(
            f"source: expected images of one size, so that all parts have the same batches, got "
            f"{len(sizes)} sizes"
        )

    def model() -> None:
        for start in range(0, len(pixels), batch_size):
            _forward(predictor, pixels[start : start + batch_size])

    def files(save: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            predict_files(predictor, paths, Path(folder, "out"), save=[save], batch_size=batch_size)

    parts: dict[str, Callable[[], None]] = {
        "model": model,
        "results": lambda: files("none"),
        "overlays": lambda: files("jpg"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            if progress is not None:
                progress(f"{name}, round {number} of {rounds}")
            started = time.perf_counter()
            part()
            if number:
                speeds[name].append(len(paths) / (time.perf_counter() - started))
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    threads = torch.get_num_threads()
    return PredictionSpeed(len(paths), batch_size, rounds, threads, **medians)


def _forward(predictor: Predictor[Any], images: Sequence[Tensor]) -> None:
    precision = predictor.description.input.precision
    with torch.inference_mode(), autocast(predictor.device, precision), unpasted_masks():
        predictor.model([image.to(predictor.device) for image in images])
