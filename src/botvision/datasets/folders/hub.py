"""Data sets of the Hugging Face Hub, and folders of the forms that its library reads."""

from pathlib import Path
from typing import Any

from botvision.datasets.folders.splits import LabeledImages
from botvision.datasets.layouts import SPLIT_WORDS
from botvision.errors import BotvisionError
from botvision.shards.read import ImageSource
from botvision.texts import Names

HUB_PREFIX = "hfds/"  # timm's
# The first of these columns is taken: the usual name, CIFAR-100's, WebDataset's.
_LABELS = ("label", "fine_label", "cls")
_LABEL_TYPES = ("int", "uint", "string", "large_string")


class HubImages(ImageSource):
    """Images of a table whose rows stay in files that the library maps into memory.

    Args:
        rows: Table of type ``datasets.Dataset``.
        column: Name of the column of the images.
        source: Name of the table for messages.

    Attributes:
        names: Number of each row, from 0, and the path of its file if the table has one.
    """

    def __init__(self, rows: Any, column: str, source: str) -> None:
        from datasets import Image as ImageFeature

        self.folder = source
        encoded = rows.select_columns(column).cast_column(column, ImageFeature(decode=False))
        self._files = encoded.flatten()
        self._content, self._path = f"{column}.bytes", f"{column}.path"
        paths = self._files.select_columns(self._path)[self._path][:]
        self.names = Names(
            f"row {row}" + (f" ({path})" if path else "") for row, path in enumerate(paths)
        )

    def where(self, name: str) -> str:
        """Return the table and the name of an image."""
        return f"{self.folder}: {name}"

    def content(self, name: str) -> bytes:
        """Return the bytes of an image file."""
        row = self._files[int(name.split()[1])]
        content, path = row[self._content], row[self._path]
        if content is not None:
            return content
        if path is None:
            raise BotvisionError(f"{self.where(name)}: expected an image, got none")
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise BotvisionError(f"{path}: {error.strerror}") from error


def hub_split(folder: str, split: str) -> LabeledImages:
    """Return a split of a data set that ``datasets.load_dataset`` reads; its code is never run.

    The columns of the images and the classes are found by their types and names.

    Args:
        folder: "hfds/" and a name on the Hub, or the path of a local folder.
        split: Name of the split, see ``find_split``.

    Raises:
        BotvisionError: If the library or the data is missing, or there is no column of images or
            classes.
    """
    try:
        import datasets
    except ImportError as error:
        raise BotvisionError(
            f"{folder}: the library datasets cannot be imported ({error}); "
            "pip install 'botvision[hf]'"
        ) from error
    try:
        tables = datasets.load_dataset(folder.removeprefix(HUB_PREFIX))
    except Exception as error:  # readers of a dozen formats raise anything
        raise BotvisionError(
            f"{folder}: cannot be loaded ({' '.join(str(error).split())}); expected hfds/ and the "
            "name of a data set on the Hugging Face Hub, which needs the network the first time, "
            "or the path of a folder"
        ) from error
    word = next((word for word in SPLIT_WORDS.get(split, (split,)) if word in tables), None)
    if word is None:
        raise BotvisionError(
            f"{folder}: no split {split!r}, got {', '.join(map(str, tables))}; name one as "
            "data.train_split or data.val_split"
        )
    source, rows = f"{folder}, split {word}", tables[word]
    images = HubImages(rows, _image_column(rows.features, source), source)
    image_classes, classes = _classes(rows, source)
    return LabeledImages(source, images, images.names, image_classes, classes=classes)


def _image_column(features: Any, source: str) -> str:
    from datasets import Image as ImageFeature

    if isinstance(features.get("image"), ImageFeature):
        return "image"
    expected = "one column of type Image, or one called 'image'"
    return _only_column(features, ImageFeature, source, expected)


def _classes(rows: Any, source: str) -> tuple[list[str], list[str] | None]:
    """Name of each row's class, and all names if they have an order of their own."""
    column = _label_column(rows.features, source)
    values = rows[column][:]
    for index, value in enumerate(values):
        if value in (None, -1, ""):  # -1 is the library's value for no class
            raise BotvisionError(
                f"{source}: row {index}: expected a class in column {column!r}, got {value!r}; use "
                "a split with classes, or remove the row"
            )
    known = getattr(rows.features[column], "names", None)
    if known is not None:
        return [known[value] for value in values], known
    return [str(value) for value in values], None


def _label_column(features: Any, source: str) -> str:
    from datasets import ClassLabel, Value

    for name in _LABELS:
        feature = features.get(name)
        if isinstance(feature, ClassLabel | Value) and feature.dtype.startswith(_LABEL_TYPES):
            return name
    expected = "classes in a column called 'label', or one column of type ClassLabel"
    return _only_column(features, ClassLabel, source, expected)


def _only_column(features: Any, kind: type, source: str, expected: str) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        got = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        raise BotvisionError(
            f"{source}: expected {expected}, got {got}; cast or rename it with the library datasets"
        )
    return str(found[0])
