"""Batches that are bounded by their pixels."""

import pytest

from botvision.images.batches import batches_within


@pytest.mark.parametrize(
    ("pixels", "most", "expected"),
    [
        ([], None, []),
        ([4, 4, 4], None, [[4, 4], [4]]),
        ([9, 1, 9], None, [[9, 1], [9]]),
        ([11, 1, 1], None, [[11], [1, 1]]),
        ([1, 11, 11, 1], None, [[1], [11], [11], [1]]),
        ([1, 1, 1, 1, 1], 2, [[1, 1], [1, 1], [1]]),
    ],
)
def test_batches(pixels, most, expected):
    assert list(batches_within(iter(pixels), lambda each: each, 10, most)) == expected


def test_few_items_are_taken_ahead():
    taken = []
    items = (taken.append(number) or number for number in range(100))
    batches = batches_within(items, lambda _: 4, 10)
    assert taken == []
    assert next(batches) == [0, 1]
    assert taken == [0, 1, 2]
