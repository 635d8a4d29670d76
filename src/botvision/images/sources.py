"""Image sources: images by name, wherever their bytes are."""

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

from PIL import Image

from botvision.errors import BotvisionError
from botvision.images.decode import decode_image, read_image


class Shards(Protocol):
    """Files that hold many images each and can be fetched before the images are read."""

    @property
    def fetched(self) -> bool:
        """Whether the shards come from another place than the local disk."""

    def room(self) -> float:
        """Return how many shards the cache may hold; infinite without a limit."""

    def fetch(self, number: int) -> None:
        """Fetch a shard unless it is here."""


class ImageSource(ABC):
    """Images by name; for COCO data the ``file_name`` of their records.

    Implementations are cheap to share with data-loading workers, and read in any order.

    Args:
        folder: Folder of the images, or another name of the source for messages.

    Attributes:
        folder: As given.
        files: Shards that hold the images; None if the images are not in shards.
    """

    files: Shards | None = None

    def __init__(self, folder: Path | str) -> None:
        self.folder = folder

    @abstractmethod
    def where(self, name: str) -> str:
        """Return what messages call an image."""

    @abstractmethod
    def content(self, name: str) -> bytes:
        """Return the bytes of an image file.

        Raises:
            BotvisionError: If the file cannot be read.
        """

    def read(self, name: str) -> Image.Image:
        """Return an image as upright RGB, see ``read_image``.

        Raises:
            BotvisionError: If the image cannot be read or decoded.
        """
        return decode_image(io.BytesIO(self.content(name)), self.where(name))

    def inside(self, name: str) -> bool:  # noqa: ARG002 - for implementations
        """Return whether the name leads to no file outside the source."""
        return True

    def missing(self, name: str) -> str:  # noqa: ARG002 - for implementations
        """Return why the image is missing or empty, without reading it; "" if it is neither."""
        return ""

    def shard(self, name: str) -> int:  # noqa: ARG002 - for implementations
        """Return the number of the shard that holds the image; 0 without shards."""
        return 0


class FolderImages(ImageSource):
    """Image files of a folder and its subfolders.

    Args:
        folder: Folder that names are relative to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder, self._root = folder, folder.resolve()

    def where(self, name: str) -> str:
        """Return the path of an image."""
        return str(self._folder / name)

    def content(self, name: str) -> bytes:
        """Return the bytes of an image file."""
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise BotvisionError(f"{self.where(name)}: {error.strerror}") from error

    def read(self, name: str) -> Image.Image:
        """Return an image as upright RGB, see ``read_image``."""
        return read_image(self._folder / name)

    def inside(self, name: str) -> bool:
        """Return whether the name, and what it links to, is a path inside the folder."""
        try:
            return (self._folder / name).resolve().is_relative_to(self._root)
        except (OSError, ValueError, RuntimeError):  # a circle of links, or not a file name
            return False

    def missing(self, name: str) -> str:
        """Return why the image is missing or empty, without reading it; "" if it is neither."""
        path = self._folder / name
        try:
            if not path.is_file():
                return "no such image"
            return "" if path.stat().st_size else "expected an image, got a file of zero bytes"
        except (OSError, ValueError) as error:
            return f"cannot be read ({error})"
