"""Which image an annotation file of its own belongs to, wherever the two lie."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from botvision.datasets.formats.labeled_sets import LabeledSet
from botvision.errors import BotvisionError
from botvision.images.find import IMAGE_SUFFIXES, files_below, image_files
from botvision.images.written_paths import find_written

# Folders of the images themselves, rather than of their previews.
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "pngimages")
_LABELS = (*IMAGE_SUFFIXES, ".xml", ".json", ".txt", ".yaml", ".csv")


class ImageIndex:
    """Images of a data set whose annotation files are one per image.

    An annotation file and its image have one name, which the tools keep when they are renamed
    together; the name that the file was written with may then be another image's by now. So the
    image of the same name comes first, and only without one that which is written.

    Args:
        result: Data set.
        field: Name of the field that names the image, for messages.
    """

    def __init__(self, result: LabeledSet, field: str) -> None:
        self._result = result
        self._field = field
        self._by_name: dict[str, list[Path]] = {}
        self._owners: dict[Path, Path] = {}
        self._renamed = 0
        self._others: dict[str, Path] | None = None  # files that are neither images nor labels
        self._images: dict[Path, None] = {}  # in order
        for path in image_files(result.root):
            # Pascal VOC's mask images have the names of the images.
            if path.parent.name.lower().startswith("segmentation"):
                continue
            self._images[path] = None
            for name in {_plain(path.name), _plain(path.stem)}:
                self._by_name.setdefault(name, []).append(path)

    def find(self, annotation: Path, written: str) -> Path | None:
        """Return the image of an annotation file; None if there is none.

        Args:
            annotation: Annotation file.
            written: Path or name of the image that is written in it; may be empty.

        Raises:
            BotvisionError: If several images may be meant, or the image is another file's.
        """
        slashed = PureWindowsPath(written).as_posix() if "\\" in written else written
        named = PurePosixPath(slashed)
        stems = {_plain(annotation.stem), _plain(PurePosixPath(annotation.stem).stem)}
        exact = self._exact(annotation, written)
        own = self._by_name.get(_plain(annotation.stem), [])
        if exact is not None and (_plain(exact.stem) in stems or not own):
            found = exact
        elif own:
            found = self._nearest(annotation, named, own)
            self._renamed += int(bool(written) and _plain(named.stem) not in stems)
        elif named.name and (others := self._by_name.get(_plain(named.name))):
            found = self._nearest(annotation, named, others)
        else:
            return None
        owner = self._owners.setdefault(found, annotation)
        if owner != annotation:
            raise BotvisionError(
                f"{annotation}: {self._field}: expected an image of its own, got {found}, which is "
                f"that of {owner}"
            )
        return found

    def missing(self, annotation: Path, written: str) -> BotvisionError:
        """Return the error about an annotation file without its image."""
        if self._others is None:
            self._others = {}
            for path in files_below(self._result.root):
                if path.suffix.lower() not in _LABELS:
                    self._others.setdefault(_plain(path.stem), path)
        other = self._others.get(_plain(annotation.stem)) if written else None
        hint = f"; {other.name} is of a format that is not read: write it as JPEG" if other else ""
        return BotvisionError(
            f"{annotation}: {self._field}: expected an image {annotation.stem}.* or the one named, "
            f"got {written!r}: no such file in {self._result.root}{hint}"
        )

    def add_notes(self, annotations: Iterable[Path], what: str) -> None:
        """Note the images that no annotation file is of, and those of another name.

        Args:
            annotations: All annotation files, also those that are in no split.
            what: What the images lack, such as "an XML file".
        """
        stems = {_plain(path.stem) for path in annotations}
        self._result.note_files(
            f"images without {what}",
            [
                path
                for path in self._images
                if path not in self._owners
                and _plain(path.stem) not in stems
                and _plain(path.name) not in stems
            ],
        )
        if self._renamed:
            self._result.notes.append(
                f"{self._field}: {self._renamed:,} files name another image than that of their "
                "own name, which is taken"
            )

    def _exact(self, annotation: Path, written: str) -> Path | None:
        root = self._result.root
        found = find_written(written, annotation.parent, root) if written else None
        if found is None:
            return None
        path = root / os.path.normpath(Path(*found.parts[len(root.parts) :]))
        return path if path in self._images else None

    def _nearest(self, annotation: Path, named: PurePosixPath, images: list[Path]) -> Path:
        """Return the image that fits the written name best and lies nearest."""

        def fit(path: Path) -> tuple[int, ...]:
            root = self._result.root
            parent = annotation.parent.relative_to(root).parts
            folders = path.parent.relative_to(root).parts
            return (
                int(_plain(path.name) == _plain(named.name)),
                _common(reversed(path.parts), reversed(named.parts)),
                _common(folders, parent) + _common(reversed(folders), reversed(parent)),
                int(bool(folders) and folders[-1].lower() in _IMAGE_FOLDERS),
            )

        fits = {path: fit(path) for path in images}
        best = max(fits.values())
        found = [path for path in images if fits[path] == best]
        if len(found) > 1:
            raise BotvisionError(
                f"{annotation}: {self._field}: expected one image {annotation.stem}.*, got "
                f"{' and '.join(map(str, found[:3]))}"
            )
        return found[0]


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """Return how many parts two paths have in common from their starts."""
    number = 0
    for one, other in zip(first, second, strict=False):
        if _plain(one) != _plain(other):
            break
        number += 1
    return number


def _plain(name: str) -> str:
    """Return a name without its case and its Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()
