"""Prediction of image files into files."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from botvision.errors import BotvisionError, OutOfMemoryError
from botvision.images.batches import DECODED_PIXELS, batches_within
from botvision.images.decode import read_image, upright_size
from botvision.images.own_files import is_own_file
from botvision.processes import one_line_out_of_memory
from botvision.tasks.predictor import Predictor, ResultWriter
from botvision.tasks.task import ProgressCallback, find_task

_BATCH_SIZE = 8
_DRAW_LESS = "free some memory, shrink the images or raise the threshold"


def predict_files(
    predictor: Predictor[Any],
    paths: Sequence[Path],
    output: Path,
    *,
    threshold: float | None = None,
    tta: bool = False,
    skip_bad: bool = False,
    max_detections: int | None = None,
    batch_size: int = _BATCH_SIZE,
    progress: ProgressCallback | None = None,
) -> tuple[dict[str, Any], ResultWriter[Any]]:
    """Predict image files and write overlays or a sheet, and ``predictions.json``.

    Files that are missing or no images are found before anything is written; a damaged one stops
    the work when its turn comes, or is skipped.

    Args:
        predictor: See ``load``.
        paths: Image files, at least one, see ``find_images``; one given twice is predicted once.
        output: Folder to write to; made if it is missing.
        threshold: Smallest score to keep; None: the default of the task.
        tta: Whether to average over horizontally flipped images (classifiers).
        skip_bad: Whether to skip images that cannot be read, and count them.
        max_detections: Most objects found in an image (Mask and Faster R-CNN); None: as in the
            training.
        batch_size: Images in memory at a time, at most; of large ones fewer.
        progress: Called with the number of images done and their total.

    Returns:
        The content of ``predictions.json``, and the writer, whose ``summary`` says it in lines.

    Raises:
        BotvisionError: If an image cannot be read, with ``skip_bad`` if none can, or a file that
            would be replaced is one of the images or was not written by a prediction.
        OutOfMemoryError: If memory does not suffice; the files that are written are whole.
        ValueError: If there are no paths.
    """
    if not paths:
        raise ValueError("paths: expected one image or more, got none")
    if output.exists() and not output.is_dir():
        raise BotvisionError(f"output {output}: expected a folder, got a file")
    # Folders are resolved and images are not: a link is an image of the folder it lies in.
    given = {path.parent.resolve() / path.name: path for path in paths}
    places, paths = [*given], [*given.values()]
    root = Path(os.path.commonpath([place.parent for place in places]))
    names = [place.relative_to(root) for place in places]
    done, threads = 0, min(batch_size, os.cpu_count() or 1)
    with predictor.limited_to(max_detections), ThreadPoolExecutor(threads) as pool:
        writer = find_task(predictor.description.task).writer(predictor, output, names)
        _check_output(output, root, places, writer.files)
        pixels, bad = _inspected(predictor, paths, skip_bad=skip_bad)
        usable = ((p, n) for p, n in zip(paths, names, strict=True) if p in pixels)
        batches = batches_within(usable, lambda each: pixels[each[0]], DECODED_PIXELS, batch_size)
        for chosen in batches:
            images: dict[Path, Image.Image] = {}
            read = pool.map(_read, [path for path, _ in chosen])
            for (path, name), image in zip(chosen, read, strict=True):
                if isinstance(image, Image.Image):
                    images[name] = image
                elif skip_bad:
                    bad[path] = str(image)
                else:
                    raise image
            if not images:
                continue
            with predictor.one_line_out_of_memory([*images.values()]):
                results = predictor.predict([*images.values()], threshold=threshold, tta=tta)
            for (name, image), result in zip(images.items(), results, strict=True):
                with one_line_out_of_memory(f"{name}: drawing the result", _DRAW_LESS):
                    writer.add(name, image, result)
                done += 1
                if progress is not None:
                    progress(done, len(paths))
    if not done:
        raise BotvisionError(f"none of the images can be read: {bad[paths[0]]}")
    skipped = [
        {"file_name": name.as_posix(), "reason": bad[path]}
        for path, name in zip(paths, names, strict=True)
        if path in bad
    ]
    with one_line_out_of_memory(f"{output}: writing the results", _DRAW_LESS):
        return writer.finish(skipped), writer


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


def _inspected(
    predictor: Predictor[Any], paths: Sequence[Path], *, skip_bad: bool
) -> tuple[dict[Path, int], dict[Path, str]]:
    """Return the number of pixels of images, and what is wrong with other files.

    Only headers are read: files that are no images or too narrow are found.
    """
    pixels, found = {}, {}
    for path in paths:
        try:
            size = upright_size(path)
            if said := predictor.size_fault(size):
                raise BotvisionError(f"{path}: {said}")
            pixels[path] = math.prod(size)
        except OutOfMemoryError:
            raise
        except BotvisionError as error:
            if not skip_bad:
                raise
            found[path] = str(error)
    if len(found) == len(paths):
        raise BotvisionError(f"none of the images can be read: {found[paths[0]]}")
    return pixels, found


def _read(path: Path) -> Image.Image | BotvisionError:
    try:
        return read_image(path)
    except OutOfMemoryError:
        raise
    except BotvisionError as error:
        return error
