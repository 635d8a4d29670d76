"""YOLO folders: boxes and polygons in text files, as fractions of the image's sides."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.formats.faults import Faults
from botvision.datasets.formats.labeled_sets import LabeledSet, Progress, exists, read_text
from botvision.datasets.formats.yolo_classes import YoloClasses, listed_classes, yaml_classes
from botvision.datasets.formats.yolo_images import YoloImages, set_files
from botvision.datasets.formats.yolo_lines import LineForm, find_form, read_lines
from botvision.datasets.layouts import is_yolo_label, is_yolo_name_list, yolo_files
from botvision.errors import BotvisionError
from botvision.images.find import is_image_name
from botvision.images.written_paths import find_written

_UNREADABLE = frozenset(
    {".heic", ".heif", ".jxl", ".tga", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".psd"}
    | {".eps", ".svg", ".mpo", ".pfm", ".dcm", ".exr", ".hdr", ".ico", ".pdf"}
)
"""Suffixes of images that ``read_image`` does not read."""


def read(folder: Path, *, progress: Progress | None = None) -> LabeledSet:
    """Read a YOLO detection or segmentation folder.

    ``data.yaml`` or Darknet's ``obj.data`` gives the classes and the images of ``train``, ``val``
    and ``test``. Without one, all images are taken, the names of their folders tell the splits, and
    the classes are those of ``classes.txt`` or a list of another usual name. Labels are where YOLO
    looks for them: under the path with ``labels`` for ``images``, or beside the image. A class
    keeps its index as category id. Of lines with keypoints, confidences or track ids only the box
    or outline is read, see ``find_form``.

    Args:
        folder: YOLO folder; nothing in it is changed.
        progress: Called with the number of images read and the total.

    Raises:
        BotvisionError: Naming the file and the line. Faults of images and labels are collected.
    """
    result = LabeledSet(folder)
    images = YoloImages(result)
    classes = _described(result, images)
    result.categories = [{"id": index, "name": name} for index, name in classes.names.items()]
    labels = {image: _label_path(folder, image) for own in images.splits.values() for image in own}
    present = {path: None for path in labels.values() if exists(path)}
    for path in present:
        result.inside(path, str(path))
    form = find_form(present, classes.keypoint_fields)
    result.notes += form.notes
    total, done = sum(map(len, images.splits.values())), 0
    for split, own in images.splits.items():
        result.splits[split] = []
        for image in own:
            with result.collecting():
                result.splits[split].append(_image(result, image, labels[image], classes, form))
            done += 1
            if progress:
                progress(done, total)
    _note_unlabeled(result, labels)
    _check_rest(result, labels)
    return result


def _described(result: LabeledSet, images: YoloImages) -> YoloClasses:
    """Add the images of each split, and return the classes."""
    root = result.root
    description = next(yolo_files(root), None)  # what describes the set comes before its labels
    if description is None or description.suffix.lower() == ".txt":
        classes = listed_classes(root)
        if not images.add_lists():
            images.add_folders()
        return classes
    if description.suffix == ".data":
        content = _read_darknet(description)
        named = find_written(PurePosixPath(content.get("names", "")).name, description.parent, root)
        given = {"names": named.name} if named and named.is_file() else {}
        classes = yaml_classes(description, given) if given else listed_classes(root)
        if content.get("classes", str(len(classes.names))) != str(len(classes.names)):
            raise BotvisionError(
                f"{description}: classes: expected {len(classes.names)} as there are names, got "
                f"{content['classes']}"
            )
        images.add_named(description, content, root)
        return classes
    others = [p.name for p in yolo_files(root) if p.suffix in (".yaml", ".yml")][1:]
    if others:
        result.notes.append(f"{description} is taken; {', '.join(others)} is not read")
    content = _read_yaml(description)
    classes = yaml_classes(description, content)
    base = root
    if written := content.get("path"):
        found = find_written(str(written), root, root)
        if found is not None and found.is_dir():
            base = found
        else:
            # A path of the computer that made the file, or relative to another folder.
            result.notes.append(
                f"{description}: path: {written} is not in {root}, which is taken instead"
            )
    images.add_named(description, content, base)
    return classes


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise BotvisionError(f"{path}: line {line}: not YAML") from error
    if not isinstance(content, dict):
        raise BotvisionError(f"{path}: expected names, train and val, got {content!r:.60}")
    return content


def _read_darknet(path: Path) -> dict[str, str]:
    """Return keys and values of Darknet's obj.data, lines such as "train = data/train.txt"."""
    pairs = (line.partition("=") for line in read_text(path).split("\n") if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _label_path(folder: Path, image: Path) -> Path:
    """Return where the labels of an image are, or would be."""
    parts = list(image.relative_to(folder).parts)
    beside = _text(image)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index].lower() == "images":
            parent = folder.joinpath(*parts[:index])
            name = next((n for n in ("labels", "Labels") if (parent / n).is_dir()), "labels")
            path = _text(parent.joinpath(name, *parts[index + 1 :]))
            if exists(path):
                return path
            if exists(beside):
                return beside
            if not image.name.isascii():
                # A Mac writes letters such as "ü" as two characters.
                return find_written(str(path.relative_to(folder)), folder, folder) or path
            return path
    return beside


def _text(image: Path) -> Path:
    """Return the path with the suffix ".txt", or the one of ".TXT" if there is such a file."""
    path = image.with_suffix(".txt")
    upper = path.with_suffix(".TXT")
    return upper if not exists(path) and exists(upper) else path


def _image(
    result: LabeledSet, image: Path, labels: Path, classes: YoloClasses, form: LineForm
) -> CocoImage:
    """Read an image's size and labels; all their faults are raised at once."""
    faults = Faults()
    size, annotations = (1, 1), []
    with faults.collecting():
        size = result.size(image, str(image))
    with faults.collecting():
        annotations = read_lines(result, labels, size, classes.names, form)
    faults.raise_collected(str(image))
    return CocoImage(image, *size, annotations)


def _note_unlabeled(result: LabeledSet, labels: dict[Path, Path]) -> None:
    unlabeled = sum(not exists(path) for path in labels.values())
    if unlabeled:
        result.notes.append(
            f"{unlabeled:,} of {len(labels):,} images have no label file: they are taken as images "
            "without an object"
        )


def _check_rest(result: LabeledSet, labels: dict[Path, Path]) -> None:
    """Collect label files whose image is missing, and note the files that are in no split."""
    files = list(set_files(result.root))
    images = {path for path in files if is_image_name(path)}
    used = set(labels.values())
    image_folders: dict[Path, set[Path]] = {}
    for image, path in labels.items():
        image_folders.setdefault(path.parent, set()).add(image.parent)
    stems = Counter((path.parent, path.stem) for path in images)
    unread = []
    for path in files:
        if path.suffix.lower() != ".txt" or path in used or is_yolo_name_list(path):
            continue
        if not is_yolo_label(path):
            continue
        folders = image_folders.get(path.parent, set())
        if not folders or any(stems[folder, path.stem] for folder in folders):
            unread.append(path)  # the image is noted below, if it is there
        else:
            with result.collecting():
                raise BotvisionError(_orphan(path, sorted(folders)[0], files))
    result.note_files("label files that belong to no image of a split", unread)
    result.note_files("images that are in no split", images - set(labels))
    result.note_files(
        "images of a format that is not read", [p for p in files if p.suffix.lower() in _UNREADABLE]
    )


def _orphan(path: Path, folder: Path, files: Sequence[Path]) -> str:
    others = (p.name for p in files if p.stem == path.stem and p.suffix.lower() in _UNREADABLE)
    there = next((f"; {name} is of a format that is not read" for name in others), "")
    return f"{path}: expected an image {path.stem}.* in {folder}, got none{there}"
