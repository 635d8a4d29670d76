"""Images decoded ahead of a model and drawn behind it, in order and in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from PIL import Image

from botvision.errors import BotvisionError, OutOfMemoryError
from botvision.images.batches import DECODED_PIXELS

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_MOST_THREADS = 8
_AHEAD = 2  # batches


@dataclass
class Streamed(Generic[_Item, _Result]):
    """What became of an item.

    Attributes:
        item: The item.
        size: (width, height) of its image; None if it could not be read.
        result: Result of the model; None if the image could not be read.
        fault: Why the image could not be read; None if it could.
    """

    item: _Item
    size: tuple[int, int] | None = None
    result: _Result | None = None
    fault: BotvisionError | None = None


@dataclass
class _Slot(Generic[_Item, _Result]):
    streamed: Streamed[_Item, _Result]
    pixels: int
    work: "Future[Any] | None" = None


def stream_results(
    items: Iterable[_Item],
    predict: Callable[[Sequence[Image.Image]], Sequence[_Result]],
    *,
    pixels: Callable[[_Item], int],
    read: Callable[[_Item], Image.Image],
    draw: Callable[[_Item, Image.Image, _Result], None] | None = None,
    batch_size: int = 8,
) -> Iterator[Streamed[_Item, _Result]]:
    """Read images in threads, predict them in batches, and draw the results in threads.

    The model runs in the calling thread. At most ``DECODED_PIXELS`` of decoded images are held at a
    time, or a single larger image.

    Args:
        items: What stands for the images, such as their paths.
        predict: The model, a function of RGB images.
        pixels: Returns the number of pixels of an item; raises as ``read`` does.
        read: Returns the image of an item; raises a BotvisionError if it cannot be read. Called
            in threads.
        draw: Called with an item, its image and its result, in threads; None: nothing is drawn.
        batch_size: Most images in a batch.

    Yields:
        What became of each item, in order; of those that are drawn, afterwards.

    Raises:
        OutOfMemoryError: If memory does not suffice.
        Exception: What ``predict`` and ``draw`` raise.
    """
    source, waiting, held = iter(items), deque[_Slot[_Item, _Result]](), 0
    ahead, behind = deque[_Slot[_Item, _Result]](), deque[_Slot[_Item, _Result]]()
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        while True:
            while len(ahead) < _AHEAD * batch_size:
                if not waiting:
                    item = next(source, None)
                    if item is None:
                        break
                    waiting.append(_slot(item, pixels))
                slot = waiting[0]
                if (ahead or behind) and held + slot.pixels > DECODED_PIXELS:
                    break
                held += slot.pixels
                if slot.streamed.fault is None:
                    slot.work = pool.submit(read, slot.streamed.item)
                ahead.append(waiting.popleft())
            batch = [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]
            _predict(batch, predict, draw, pool)
            behind.extend(batch)
            if not behind:
                return
            # Without a batch, the next image waits for the memory of those that are being drawn.
            while behind and (not batch or len(behind) > _AHEAD * batch_size or _done(behind[0])):
                slot = behind.popleft()
                if slot.work is not None:
                    slot.work.result()
                held -= slot.pixels
                yield slot.streamed
                if not batch:
                    break
    finally:
        pool.shutdown(cancel_futures=True)


def _slot(item: _Item, pixels: Callable[[_Item], int]) -> _Slot[_Item, Any]:
    try:
        return _Slot(Streamed(item), pixels(item))
    except OutOfMemoryError:
        raise
    except BotvisionError as error:
        return _Slot(Streamed(item, fault=error), 0)


def _predict(
    batch: Sequence[_Slot[_Item, _Result]],
    predict: Callable[[Sequence[Image.Image]], Sequence[_Result]],
    draw: Callable[[_Item, Image.Image, _Result], None] | None,
    pool: ThreadPoolExecutor,
) -> None:
    """Predict the images of a batch and let them be drawn; no other reference to them is left."""
    images = {
        index: image for index, slot in enumerate(batch) if (image := _image(slot)) is not None
    }
    if not images:
        return
    for (index, image), result in zip(images.items(), predict([*images.values()]), strict=True):
        slot = batch[index]
        slot.streamed.size, slot.streamed.result = image.size, result
        slot.work = None
        if draw is not None:
            slot.work = pool.submit(draw, slot.streamed.item, image, result)


def _image(slot: _Slot[_Item, _Result]) -> Image.Image | None:
    """Wait for the image of a slot; None if it cannot be read."""
    if slot.work is None:
        return None
    try:
        image: Image.Image = slot.work.result()
    except OutOfMemoryError:
        raise
    except BotvisionError as error:
        slot.streamed.fault, slot.work = error, None
        return None
    return image


def _done(slot: _Slot[_Item, _Result]) -> bool:
    return slot.work is None or slot.work.done()
