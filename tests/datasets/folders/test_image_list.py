"""Arrays give back the images that went in, for little memory."""

import os
import tracemalloc

import pytest

from botvision.datasets.folders.image_list import ImageList
from botvision.datasets.folders.splits import ClassImage, find_images


def test_images_come_back(shapes, archives):
    for path in (shapes / "train", archives / "shapes-train.tar"):
        images = find_images(path)
        packed = ImageList(images)
        assert list(packed) == images
        assert [packed[place] for place in range(120)] == images
        assert (len(packed), packed[-1]) == (120, images[-1])
        assert packed.name(5) == images[5].name
        assert packed.read(5).tobytes() == images[5].read().tobytes()
        with pytest.raises(IndexError):
            packed[120]
    assert list(ImageList([])) == []


def test_names_in_any_letters():
    strange = os.fsdecode(b"gr\xf6n")  # Latin-1, which is no UTF-8
    names = ["кот/1.png", f"{strange}/2.png", "猫/3.png"]
    images = [
        ClassImage(names[0], f"/data/train/{names[0]}"),
        ClassImage(names[1], "a.tar", (512, 9)),
    ]
    images.append(ClassImage(names[2], "b.tar", (0, 0)))
    assert list(ImageList(images)) == images


def test_memory():
    count = 20_000
    images = [
        ClassImage(f"n{i % 100:08}/n{i % 100:08}_{i}.JPEG", "train.tar", (512 * i, 100_000 + i))
        for i in range(count)
    ]
    tracemalloc.start()
    packed = ImageList(images)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / count < 80
    assert packed[count - 1] == images[-1]
