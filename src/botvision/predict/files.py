"""Prediction of image files into files, which goes on where it was interrupted."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from botvision.errors import BotvisionError, OutOfMemoryError
from botvision.files import quoted
from botvision.images.decode import read_image, upright_size
from botvision.images.own_files import MADE_BY, OUTPUT_NAME, is_own_file
from botvision.images.stream import stream_results
from botvision.predict.journal import JOURNAL_NAME, PARTIAL_NAME, Journal
from botvision.processes import one_line_out_of_memory
from botvision.tasks.predictor import Predictor
from botvision.tasks.task import ProgressCallback, find_task

_BATCH_SIZE = 8
_DRAW_LESS = "free some memory, shrink the images or raise the threshold"
_LOOKED_AT = 256  # files before the first is predicted


@dataclass(frozen=True)
class PredictionReport:
    """What a prediction of files did.

    Attributes:
        output: Folder of the results.
        images: Number of images predicted, those of an interrupted call before included.
        skipped: ``file_name`` and ``reason`` of the images that could not be read.
        continued: Number of images that an interrupted call had done before.
        lines: What was found and where it is, for a person.
    """

    output: Path
    images: int
    skipped: list[dict[str, str]] = field(default_factory=list)
    continued: int = 0
    lines: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """Return the content of ``predictions.json``."""
        content: dict[str, Any] = json.loads((self.output / OUTPUT_NAME).read_text())
        return content


def predict_files(
    predictor: Predictor[Any],
    paths: Sequence[Path],
    output: Path,
    *,
    threshold: float | None = None,
    tta: bool = False,
    skip_bad: bool = False,
    max_detections: int | None = None,
    save: Sequence[str] | None = None,
    batch_size: int = _BATCH_SIZE,
    progress: ProgressCallback | None = None,
) -> PredictionReport:
    """Predict image files and write overlays or a sheet, and ``predictions.json``.

    Images are decoded and drawn in threads while the model runs. Each result is written to
    ``predictions.partial.jsonl`` as soon as it is there; the same call after an interruption goes
    on behind the last one. In the end that file becomes ``predictions.jsonl``.

    Missing files, and files among the first 256 that are no images, are found before anything is
    written. A damaged one stops the work when its turn comes, or is skipped.

    Args:
        predictor: See ``load``.
        paths: Image files, at least one, see ``find_sources``; one given twice is predicted once.
        output: Folder to write to; made if it is missing.
        threshold: Smallest score to keep; None: the default of the task.
        tta: Whether to average over horizontally flipped images (classifiers).
        skip_bad: Whether to skip images that cannot be read, and count them.
        max_detections: Most objects found in an image (Mask and Faster R-CNN); None: as in the
            training.
        save: What to write besides ``predictions.json``, see the writer of the task; None: its
            default.
        batch_size: Most images in a batch; of large ones fewer.
        progress: Called with the number of images done and their total.

    Raises:
        BotvisionError: If an image cannot be read, with ``skip_bad`` if none can, or a file that
            would be replaced is one of the images or was not written by a prediction.
        OutOfMemoryError: If memory does not suffice; the files that are written are whole.
        ValueError: If there are no paths, or the batch size is less than 1.
    """
    if not paths:
        raise ValueError("paths: expected one image or more, got none")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    if output.exists() and not output.is_dir():
        raise BotvisionError(f"output {output}: expected a folder, got a file")
    # Folders are resolved and images are not: a link is an image of the folder it lies in.
    given = {path.parent.resolve() / path.name: path for path in paths}
    places, paths = [*given], [*given.values()]
    root = Path(os.path.commonpath([place.parent for place in places]))
    names = {path: place.relative_to(root) for path, place in zip(paths, places, strict=True)}
    with predictor.limited_to(max_detections):
        task = find_task(predictor.description.task)
        writer = task.writer(predictor, output, [*names.values()], save)
        files = [*writer.files, output / JOURNAL_NAME, output / PARTIAL_NAME]
        _check_output(output, root, places, files)
        options = {
            "threshold": threshold,
            "tta": tta,
            "max_detections": max_detections,
            "save": None if save is None else sorted(save),
        }
        journal = Journal(output, _header(predictor, options, [*names.values()]))
        left = [path for path in paths if names[path].as_posix() not in journal.done]
        _look_at(predictor, left, skip_bad=skip_bad, others=len(paths) - len(left))
        done = continued = len(journal.done)

        def predict(images: Sequence[Image.Image]) -> list[Any]:
            with predictor.one_line_out_of_memory(images):
                return predictor.predict(images, threshold=threshold, tta=tta)

        def draw(path: Path, image: Image.Image, result: Any) -> None:
            with one_line_out_of_memory(f"{names[path]}: drawing the result", _DRAW_LESS):
                writer.draw(names[path], image, result)

        streamed = stream_results(
            left,
            predict,
            pixels=lambda path: _pixels(predictor, path),
            read=read_image,
            draw=draw,
            batch_size=batch_size,
        )
        for each in streamed:
            name = names[each.item]
            if each.fault is not None:
                if not skip_bad:
                    raise each.fault if not done else _stopped(each.fault, output, done)
                journal.skip(name.as_posix(), str(each.fault))
            else:
                assert each.size is not None
                journal.add(writer.record(name, each.size, each.result))
            done += 1
            if progress is not None:
                progress(done, len(paths))
    skipped = journal.skipped()
    if len(skipped) == len(paths):
        (output / PARTIAL_NAME).unlink()
        raise BotvisionError(f"none of the images can be read: {skipped[0]['reason']}")
    with one_line_out_of_memory(f"{output}: writing the results", _DRAW_LESS):
        writer.finish(journal.records, skipped, lambda name: read_image(root / name))
    journal.finish()
    return PredictionReport(
        output, done - len(skipped), skipped, continued, tuple(writer.summary())
    )


def _header(
    predictor: Predictor[Any], options: dict[str, Any], names: Sequence[Path]
) -> dict[str, Any]:
    """Return what an interrupted prediction must have had in common to be gone on with."""

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    listed = "\n".join(name.as_posix() for name in names)
    return {
        "made_by": MADE_BY,
        "weights": digest(predictor.description.model_dump_json()),
        "options": options,
        "images": digest(listed),
    }


def _stopped(fault: BotvisionError, output: Path, done: int) -> BotvisionError:
    return BotvisionError(
        f"{fault}; the {done:,} images before it are in {quoted(output)}, and the same command "
        "goes on behind them"
    )


def _check_output(output: Path, root: Path, images: Sequence[Path], files: Sequence[Path]) -> None:
    """Refuse an output folder in which an image would be replaced."""
    target = output.resolve()
    taken = {target / path.relative_to(output) for path in files} & set(images)
    if taken:
        raise BotvisionError(f"output {output}: {min(taken)} is one of the images")
    if target == root:
        raise BotvisionError(f"output {output}: expected another folder than that of the images")
    there = (path for path in files if path.exists() or path.is_symlink())
    foreign = [path for path in there if path.is_symlink() or not is_own_file(path, output)]
    if foreign:
        others = f" (and {len(foreign) - 1} more)" if foreign[1:] else ""
        raise BotvisionError(
            f"output {output}: {foreign[0].relative_to(output)}{others} is there and is not of an "
            "earlier prediction; choose another folder"
        )


def _look_at(
    predictor: Predictor[Any], paths: Sequence[Path], *, skip_bad: bool, others: int
) -> None:
    """Find missing files and, by the headers of the first ones, files that are no images."""
    faults = []
    for number, path in enumerate(paths):
        try:
            if number < _LOOKED_AT:
                _pixels(predictor, path)
            elif not path.is_file():
                raise BotvisionError(f"{path}: no such image")
        except OutOfMemoryError:
            raise
        except BotvisionError as error:
            if not skip_bad:
                raise
            faults.append(error)
    if paths and len(faults) == len(paths) and not others:
        raise BotvisionError(f"none of the images can be read: {faults[0]}")


def _pixels(predictor: Predictor[Any], path: Path) -> int:
    """Return the number of pixels of an image, by its header."""
    size = upright_size(path)
    if said := predictor.size_fault(size):
        raise BotvisionError(f"{path}: {said}")
    return math.prod(size)
