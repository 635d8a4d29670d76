"""Batches bounded by pixels: few large images are in memory at a time, or many small ones."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

FORWARD_PIXELS = 2**24
"""Most pixels of the images in one call of a detector; as floats they take 192 MiB."""
DECODED_PIXELS = 2**25
"""Most pixels of decoded images that are held at a time; as bytes they take 96 MiB."""

_Item = TypeVar("_Item")


def batches_within(
    items: Iterable[_Item],
    pixels: Callable[[_Item], int],
    limit: int,
    most: int | None = None,
) -> Iterator[list[_Item]]:
    """Yield items in batches, in their order.

    Args:
        items: Items; one more than those of the batch may have been taken.
        pixels: Function that returns the number of pixels of an item.
        limit: Most pixels of a batch; an item that has more is a batch by itself.
        most: Most items of a batch; None: any number.
    """
    batch: list[_Item] = []
    held = 0
    for item in items:
        own = pixels(item)
        if batch and (held + own > limit or len(batch) == most):
            yield batch
            batch, held = [], 0
        batch.append(item)
        held += own
    if batch:
        yield batch
