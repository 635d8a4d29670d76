"""The order of an epoch over images in shards: random, and yet of few shards at a time."""

from collections.abc import Sequence

import torch

LANES = 8
"""Parts of an epoch that run side by side: up to so many machines read shards of their own, if
their number divides it and each takes its share of a batch at once."""

WINDOW = 8
"""Shards that the items of a lane are shuffled over."""


def shard_order(
    lengths: Sequence[int], steps: int, batch_size: int, generator: torch.Generator
) -> list[int]:
    """Every item once, and as many again as whole batches need.

    The shards are shuffled. What they hold, one shard after the other, is cut into ``LANES``
    lanes; in each an item moves back by up to ``WINDOW`` shards at random. Every batch takes its
    first items from the first lane, and so on: processes, which take a batch's items one after the
    other, keep to their lanes, and a batch holds the same items however many processes there are.

    Args:
        lengths: Number of items of each shard; items are numbered one shard after the other.
        steps: Batches.
        batch_size: Of each; ``steps * batch_size`` is at least the number of items.
        generator: Draws.

    Returns:
        Items, batch after batch.
    """
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    shards = torch.randperm(len(lengths), generator=generator).tolist()
    items = torch.cat([torch.arange(starts[shard], starts[shard + 1]) for shard in shards])
    window = WINDOW * len(items) / len(lengths)
    needed = steps * batch_size
    items = items.repeat(-(-needed // len(items)))[:needed]
    widths = torch.bincount(torch.arange(batch_size) * LANES // batch_size, minlength=LANES)
    columns = []
    for width, lane in zip(widths.tolist(), items.split((steps * widths).tolist()), strict=True):
        # A lane begins with its first shard alone, so that no one waits for a window of them.
        places = torch.arange(len(lane)) + window * torch.rand(len(lane), generator=generator)
        columns.append(lane[places.argsort(stable=True)].reshape(steps, width))
    order: list[int] = torch.cat(columns, dim=1).flatten().tolist()
    return order
