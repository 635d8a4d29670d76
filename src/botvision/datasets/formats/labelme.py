"""labelme folders: one JSON file of shapes per image."""

import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botvision.datasets.annotation_files import labelme_files
from botvision.datasets.coco.file import read_json
from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.formats.faults import Faults
from botvision.datasets.formats.image_index import ImageIndex
from botvision.datasets.formats.labeled_sets import LabeledSet, Progress
from botvision.datasets.formats.labelme_shapes import Shape, decode_base64, instance, read_shape
from botvision.datasets.layouts import split_of
from botvision.errors import BotvisionError
from botvision.images.decode import decode_image

_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"BM": ".bmp", b"GIF8": ".gif"}


def read(folder: Path, *, progress: Progress | None = None) -> LabeledSet:
    """Read a folder of labelme's JSON files, and of X-AnyLabeling's, in any subfolders.

    Shapes of one label and one ``group_id`` are one instance. Polygons, rectangles (upright or
    rotated), circles and masks are read; lines and points are left out and counted, as are the
    labels that labelme reserves. Shapes marked as difficult become crowds. The image is that of the
    JSON file's own name, else the one that ``imagePath`` names, else ``imageData``. Classes are
    numbered from 1 by name.

    Args:
        folder: labelme folder; nothing in it is changed.
        progress: Called with the number of files read and the total.

    Returns:
        The data set, with the faults of its files.
    """
    result = LabeledSet(folder)
    files = list(labelme_files(folder))
    index = ImageIndex(result, "imagePath")
    images: list[tuple[str, CocoImage, list[tuple[str, dict[str, Any]]]]] = []
    for number, path in enumerate(files, start=1):
        with result.collecting():
            content = read_json(result.inside(path, str(path)))
            image = _image(result, index, path, content)
            _check_size(path, content, image)
            size = image.width, image.height
            annotations = list(_annotations(result, path, content.get("shapes"), size))
            images.append((_split(folder, path), image, annotations))
        if progress:
            progress(number, len(files))
    index.add_notes(files, "a JSON file")
    if embedded := sum(image.content is not None for _, image, _ in images):
        result.notes.append(
            f"imageData: {embedded:,} images are taken from their JSON files, since there are no "
            "files of them"
        )
    names = sorted({label for _, _, annotations in images for label, _ in annotations})
    ids = {name: number for number, name in enumerate(names, start=1)}
    result.categories = [{"id": number, "name": name} for name, number in ids.items()]
    for split, image, annotations in images:
        image.annotations.extend({**each, "category_id": ids[name]} for name, each in annotations)
        result.splits.setdefault(split, []).append(image)
    return result


def _split(folder: Path, path: Path) -> str:
    parts = path.parent.relative_to(folder).parts
    return next((split for part in reversed(parts) if (split := split_of(part.lower()))), "train")


def _image(result: LabeledSet, index: ImageIndex, path: Path, content: dict[str, Any]) -> CocoImage:
    """Return the image of a JSON file, from a file or from the JSON file itself."""
    named = content.get("imagePath")
    if not isinstance(named, str | None):
        raise BotvisionError(f"{path}: imagePath: expected an image's path, got {named!r:.60}")
    found = index.find(path, named or "")
    if found is not None:
        return CocoImage(found, *result.size(found, f"{path}: imagePath"), [])
    text = content.get("imageData")
    if not isinstance(text, str) or not text:
        raise index.missing(path, named or "")
    data = decode_base64(str(path), "imageData", text)
    size = decode_image(io.BytesIO(data), f"{path}: imageData").size
    suffix = next((end for head, end in _SUFFIXES.items() if data.startswith(head)), ".png")
    # Read again when it is written, so that the images of a data set need not fit into memory.
    return CocoImage(
        path.with_suffix(suffix), *size, [], content=functools.partial(_embedded, path)
    )


def _embedded(path: Path) -> bytes:
    return decode_base64(str(path), "imageData", read_json(path)["imageData"])


def _check_size(path: Path, content: dict[str, Any], image: CocoImage) -> None:
    for side, expected in (("imageWidth", image.width), ("imageHeight", image.height)):
        if content.get(side) not in (None, expected):
            raise BotvisionError(
                f"{path}: {side}: expected {expected} as {image.path.name} is, got "
                f"{content[side]!r:.60}"
            )


def _annotations(
    result: LabeledSet, path: Path, shapes: Any, size: tuple[int, int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield class name and record of each instance; category ids are filled in at the end."""
    if not isinstance(shapes, list):
        raise BotvisionError(f"{path}: shapes: expected a list, got {type(shapes).__name__}")
    groups: dict[Any, list[Shape]] = {}
    faults = Faults()
    for number, each in enumerate(shapes, start=1):
        with faults.collecting():
            if shape := read_shape(f"{path}: shape {number}", number, each, result):
                groups.setdefault(shape.group, []).append(shape)
    faults.raise_collected(str(path))
    for members in groups.values():
        if record := instance(members, result, size):
            yield members[0].label, record
