"""Masks drawn after the transforms: like those drawn before, in the memory of the output."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from botvision.datasets.coco import dataset
from botvision.datasets.coco.augmentation import training_transform
from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.coco.late_masks import LateMasks
from botvision.datasets.coco.polygons import instance_mask

HEIGHT, WIDTH = 240, 360
IMAGE = {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}


def ellipse(x, y, across, along):
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    points = np.stack([x + across * np.cos(angles), y + along * np.sin(angles)], axis=1)
    return [points.ravel().tolist()]


def record(number, segmentation, box):
    return {
        "id": number,
        "image_id": 1,
        "category_id": 5,
        "bbox": box,
        "segmentation": segmentation,
    }


@pytest.fixture
def records():
    square = np.zeros((HEIGHT, WIDTH), np.uint8)
    square[40:140, 200:330] = 1
    flat = square.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return [
        record(1, ellipse(100, 120, 60, 80), [40, 40, 120, 160]),
        record(2, {"size": [HEIGHT, WIDTH], "counts": lengths}, [200, 40, 130, 100]),
        record(3, [], [20, 150, 300, 60]),
    ]


def overlap(one, other):
    one, other = one.bool(), other.bool()
    return float((one & other).sum() / (one | other).sum())


def test_unmoved_masks_are_those_of_the_image(records):
    masks = LateMasks.of(records, HEIGHT, WIDTH).draw()
    for mask, each in zip(masks, records, strict=True):
        assert np.array_equal(mask.numpy(), instance_mask(each, HEIGHT, WIDTH))


def test_moved_masks_are_those_of_the_moved_image(records):
    early = LateMasks.of(records, HEIGHT, WIDTH).draw()
    late = LateMasks.of(records, HEIGHT, WIDTH)
    for move in (
        lambda masks: F.resize(masks, [480, 540]),
        lambda masks: F.crop(masks, 30, 50, 400, 450),
        F.horizontal_flip,
        lambda masks: F.resize(masks, [200, 300]),
        lambda masks: F.crop(masks, 0, 10, 190, 280),
    ):
        early, late = move(early), move(late)
    drawn = late.draw()
    assert drawn.shape == early.shape
    assert all(overlap(*pair) > 0.93 for pair in zip(drawn, early, strict=True))


def test_items_are_the_same_late_and_early(write_coco, records, monkeypatch):
    folder = write_coco([IMAGE], records)
    data = CocoInstances(folder, "train", transform=training_transform(128, scale=(0.5, 2)))
    assert data.annotations.skipped == {}
    for epoch in range(4):
        monkeypatch.setattr(dataset, "_LATE", 0)
        image, late = data[epoch, 0]
        monkeypatch.setattr(dataset, "_LATE", 1e9)
        same, early = data[epoch, 0]
        assert torch.equal(image, same)
        assert late["masks"].shape == early["masks"].shape
        assert late["labels"].tolist() == early["labels"].tolist()
        for one, other in zip(late["masks"], early["masks"], strict=True):
            assert overlap(one, other) > 0.85 or int(other.sum()) < 200
        assert (late["boxes"] - early["boxes"]).abs().max() <= 2


def test_other_transforms_get_drawn_masks(write_coco, records, monkeypatch):
    monkeypatch.setattr(dataset, "_LATE", 0)
    data = CocoInstances(write_coco([IMAGE], records), "train", transform=lambda *item: item)
    assert data[0, 0][1]["masks"].shape == (3, HEIGHT, WIDTH)
    data.transform = None
    assert not isinstance(data[0, 0][1]["masks"], LateMasks)


def test_many_instances_of_a_photograph_take_little_memory(write_coco, monkeypatch):
    drawn = []
    draw = dataset.LateMasks.draw
    monkeypatch.setattr(
        dataset.LateMasks, "draw", lambda self: drawn.append(draw(self)) or drawn[-1]
    )
    monkeypatch.setattr(dataset, "_LATE", 2**20)
    records = [
        record(n, ellipse(20 + 10 * n, 50, 9, 9), [11 + 10 * n, 41, 18, 18]) for n in range(30)
    ]
    folder = write_coco([IMAGE], records)
    data = CocoInstances(folder, "train", transform=training_transform(64, scale=(1, 1)))
    _, target = data[0, 0]
    (masks,) = drawn
    assert masks.shape == (30, 42, 64)
    assert target["masks"].shape[1:] == (64, 64)
