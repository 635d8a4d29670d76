"""Predictors: trained models as functions of images, and writers of their results."""

import contextlib
import itertools
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import nn

from botvision.errors import BotvisionError
from botvision.images.batches import DECODED_PIXELS, batches_within
from botvision.images.find import find_images, matching_paths
from botvision.images.inputs import ImageInput, to_rgb
from botvision.processes import one_line_out_of_memory, processes
from botvision.weights.file import Description

Box = tuple[float, float, float, float]
Result = TypeVar("Result")
WrittenResult = TypeVar("WrittenResult", contravariant=True)
_NAMED = 8  # classes in a summary


class Predictor(ABC, Generic[Result]):
    """A trained model as a function of images of any size.

    Args:
        model: The network; put into evaluation mode on the device.
        description: Description of its weights.
        device: Device that the model runs on; None: a GPU if there is one, else the CPU.

    Attributes:
        model: The network.
        task: Kind of task, such as "instance_segmentation".
        classes: Names of the classes, in the order of the model's outputs.
        input_size: Side in pixels of the square that images are fitted into or cropped to.
        device: Device that the model runs on.
        description: Description of the weights.
        threshold: Smallest score that is kept by default.
    """

    task: str
    threshold: float = 0.0

    def __init__(
        self, model: nn.Module, description: Description, *, device: torch.device | None = None
    ) -> None:
        self.device = processes().device if device is None else device
        self.model: Any = model.eval().to(self.device)
        if description.input.memory_format == "channels_last":
            self.model.to(memory_format=torch.channels_last)  # so that training's metrics agree
        self.description = description
        self.classes = description.class_names
        self.input_size = description.input.size

    @overload
    def __call__(
        self, image: ImageInput, *, threshold: float | None = None, tta: bool = False
    ) -> Result: ...

    @overload
    def __call__(
        self,
        image: list[ImageInput] | tuple[ImageInput, ...],
        *,
        threshold: float | None = None,
        tta: bool = False,
    ) -> list[Result]: ...

    def __call__(
        self,
        image: ImageInput | list[ImageInput] | tuple[ImageInput, ...],
        *,
        threshold: float | None = None,
        tta: bool = False,
    ) -> Result | list[Result]:
        """Predict one image or a list of images.

        Args:
            image: Path, PIL image, array or tensor, see ``botvision.images.inputs.to_rgb``; or a
                list of them, which is predicted in batches: few large images are decoded at a time,
                and of small ones not all are in the network at once.
            threshold: Smallest score to keep; None: the default of the task.
            tta: Whether to average over the horizontally flipped image (classifiers).

        Returns:
            The result of the image; a list of results for a list.

        Raises:
            BotvisionError: If an image cannot be read, or an option does not apply.
            OutOfMemoryError: If memory does not suffice.
            TypeError: If an image is of another type.
            ValueError: If the shape, dtype or range of an array is another one.
        """
        if isinstance(image, list | tuple):
            results: list[Result] = []
            decoded = map(self.decoded, image)
            enlarged = self.input_size**2  # small images are, for the network
            for batch in batches_within(
                decoded, lambda one: max(enlarged, math.prod(one.size)), DECODED_PIXELS
            ):
                with self.one_line_out_of_memory(batch):
                    results += self.predict(batch, threshold=threshold, tta=tta)
            return results
        single = [self.decoded(image)]
        with self.one_line_out_of_memory(single):
            return self.predict(single, threshold=threshold, tta=tta)[0]

    def decoded(self, image: ImageInput) -> Image.Image:
        """Return an image as RGB, see ``to_rgb``.

        Raises:
            BotvisionError: If it cannot be read, or for its size not be predicted.
        """
        rgb = to_rgb(image)
        if said := self.size_fault(rgb.size):
            where = f"{image}: " if isinstance(image, str | Path) else ""
            raise BotvisionError(f"{where}{said}")
        return rgb

    def one_line_out_of_memory(
        self, images: Sequence[Image.Image]
    ) -> contextlib.AbstractContextManager[None]:
        """Return a context that turns lack of memory while images are predicted into one line."""
        width, height = max((each.size for each in images), key=math.prod)
        count = "an image" if len(images) == 1 else f"{len(images)} images"
        return one_line_out_of_memory(
            f"predicting {count} of up to {width} x {height} at a size of {self.input_size}",
            "free some memory, or take fewer or smaller images or a smaller image_size",
        )

    def stream(
        self,
        source: str | Path | Iterable[ImageInput],
        *,
        batch_size: int = 8,
        threshold: float | None = None,
    ) -> Iterator[tuple[ImageInput, Result]]:
        """Predict images one after the other, with few in memory at a time.

        Args:
            source: Image file, folder, glob pattern, or an iterable of images.
            batch_size: Images per batch.
            threshold: Smallest score to keep; None: the default of the task.

        Yields:
            Each image as the source gives it, and its result.

        Raises:
            BotvisionError: If the source is missing or an image cannot be read.
            ValueError: If ``batch_size`` is less than 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
        images = iter(_images_of(source))
        while batch := [*itertools.islice(images, batch_size)]:
            yield from zip(batch, self(batch, threshold=threshold), strict=True)

    @abstractmethod
    def predict(
        self,
        images: Sequence[Image.Image],
        *,
        threshold: float | None = None,
        tta: bool = False,
    ) -> list[Result]:
        """Predict RGB images as one batch; see ``__call__``."""

    def limit_detections(self, count: int) -> None:  # noqa: ARG002 - for implementations
        """Set how many objects are found in an image at most; it needs no training.

        Raises:
            BotvisionError: If the model has no such limit, or it cannot be set.
        """
        raise BotvisionError(f"max_detections: expected a detector, got a model for {self.task}")

    @contextlib.contextmanager
    def limited_to(self, count: int | None) -> Iterator[None]:
        """Limit detections inside the block, see ``limit_detections``; None changes nothing."""
        if count is not None:
            self.limit_detections(count)
        yield

    def size_fault(self, size: tuple[int, int]) -> str:  # noqa: ARG002 - for implementations
        """Return why an image of this width and height cannot be predicted; "" if it can."""
        return ""

    @abstractmethod
    def covered_box(self, image: Image.Image) -> Box:
        """Return the part of an image that the network's input covers.

        Returns:
            x1, y1, x2, y2 in pixels of the image; padding at the right and bottom reaches out.
        """


class ResultWriter(Protocol[WrittenResult]):
    """Writes the results of many images into a folder.

    Attributes:
        files: Paths that may be written.
    """

    files: list[Path]

    def draw(self, name: Path, image: Image.Image, result: WrittenResult) -> None:
        """Write the files of one image alone. Called in threads.

        Args:
            name: Path of the image below the folder that all images have in common.
            image: The image as RGB.
            result: Result of the image.
        """

    def record(self, name: Path, size: tuple[int, int], result: WrittenResult) -> dict[str, Any]:
        """Return the result of an image as a line of JSON, with its path as ``file_name``.

        Args:
            name: See ``draw``.
            size: (width, height) of the image.
            result: Result of the image.
        """

    def finish(
        self,
        records: Callable[[], Iterator[dict[str, Any]]],
        skipped: Sequence[dict[str, Any]],
        read: Callable[[str], Image.Image],
    ) -> None:
        """Write ``predictions.json`` and whatever else covers all images.

        Args:
            records: Returns the records of all images that were read, in order; they may be more
                than memory holds.
            skipped: ``file_name`` and ``reason`` of the images that could not be read.
            read: Returns the image of a ``file_name``.
        """

    def summary(self) -> list[str]:
        """Return lines that say what was found and where it is."""


def counted(counts: Counter[str]) -> str:
    """Return how often the most frequent classes were found, and how many more classes were."""
    parts = [f"{name} {count:,}" for name, count in counts.most_common(_NAMED)]
    if len(counts) > _NAMED:
        parts.append(f"{len(counts) - _NAMED} classes more")
    return ", ".join(parts)


def _images_of(source: str | Path | Iterable[ImageInput]) -> Iterator[ImageInput]:
    if not isinstance(source, str | Path):
        single = isinstance(source, Image.Image | np.ndarray | torch.Tensor)
        if single and getattr(source, "ndim", 2) < 4:  # its rows would pass for gray images
            raise TypeError("source: expected a path or an iterable of images, got one image")
        yield from source
        return
    yield from find_images(matching_paths(str(source))).paths
