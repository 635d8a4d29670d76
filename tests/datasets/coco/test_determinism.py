"""All augmentation at once: the same items whatever the workers and the order of reading."""

import random

import numpy as np
import pytest
import torch

from botvision.datasets.loading import load_batches
from botvision.recipes.running import build_task

EVERYTHING = (
    "data.scale_jitter=[0.3, 2.0]",
    "data.flip=0.5",
    "data.color_jitter=0.4",
    "data.copy_paste=0.7",
)
KEYS = [(epoch, index) for epoch in (0, 1) for index in range(8)]


def open_data(make_recipe, *overrides):
    return build_task(make_recipe(*EVERYTHING, *overrides)).train_data()


def load(data, keys, num_workers):
    """Items by key as numpy, whatever carried them."""
    batches = [keys[first : first + 3] for first in range(0, len(keys), 3)]
    items = {}
    loaded = load_batches(data, batches, collate=list, num_workers=num_workers)
    for batch, keys_of_batch in zip(loaded, batches, strict=True):
        for key, (image, target) in zip(keys_of_batch, batch, strict=True):
            items[key] = {"image": image, **target}
    return {
        key: {name: torch.as_tensor(value).numpy() for name, value in item.items()}
        for key, item in items.items()
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, item in one.items():
        assert item.keys() == other[key].keys()
        for name, value in item.items():
            assert np.array_equal(value, other[key][name]), (key, name)


@pytest.fixture(scope="module")
def expected(make_recipe):
    return load(open_data(make_recipe), KEYS, num_workers=0)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_items_depend_on_neither_workers_nor_order(make_recipe, expected, num_workers):
    torch.manual_seed(num_workers)
    keys = random.Random(num_workers).sample(KEYS, len(KEYS))
    assert_same(load(open_data(make_recipe), keys, num_workers), expected)


def test_all_of_the_augmentation_is_on(make_recipe, expected):
    """Turning any of it off changes images, so that the test above is of all of it."""
    for off in ("scale_jitter=[1, 1]", "flip=0", "color_jitter=0", "copy_paste=0"):
        other = load(open_data(make_recipe, f"data.{off}"), KEYS, num_workers=0)
        same = sum(np.array_equal(other[key]["image"], expected[key]["image"]) for key in KEYS)
        assert same < len(KEYS) - 4, off


def test_the_seed_and_the_epoch_change_items(make_recipe, expected):
    other = load(open_data(make_recipe, "training.seed=1"), KEYS, num_workers=0)
    for epoch, index in KEYS:
        image = expected[epoch, index]["image"]
        assert not np.array_equal(image, other[epoch, index]["image"])
        assert not np.array_equal(image, expected[1 - epoch, index]["image"])


def test_evaluation_sees_images_as_they_are(make_recipe, handwriting):
    task = build_task(make_recipe(*EVERYTHING))
    plain = build_task(make_recipe("data.copy_paste=0", "data.color_jitter=0"))
    for index in range(len(task._val)):
        (image, target), (other, other_target) = task._val[(0, index)], plain._val[(3, index)]
        assert torch.equal(image, other)
        assert torch.equal(target["boxes"], other_target["boxes"])
        assert torch.equal(target["masks"], other_target["masks"])
