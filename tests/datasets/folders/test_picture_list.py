"""Arrays give back the pictures that went in, for little memory."""

import os
import tracemalloc

import pytest

from botvision.datasets.folders.picture_list import PictureList
from botvision.datasets.folders.splits import ClassPicture, find_pictures


def test_pictures_come_back(shapes, archives):
    for path in (shapes / "train", archives / "shapes-train.tar"):
        pictures = find_pictures(path)
        packed = PictureList(pictures)
        assert list(packed) == pictures
        assert [packed[place] for place in range(120)] == pictures
        assert (len(packed), packed[-1]) == (120, pictures[-1])
        assert packed.name(5) == pictures[5].name
        assert packed.read(5).tobytes() == pictures[5].read().tobytes()
        with pytest.raises(IndexError):
            packed[120]
    assert list(PictureList([])) == []


def test_names_in_any_letters():
    strange = os.fsdecode(b"gr\xf6n")  # Latin-1, which is no UTF-8
    names = ["кот/1.png", f"{strange}/2.png", "猫/3.png"]
    pictures = [
        ClassPicture(names[0], f"/data/train/{names[0]}"),
        ClassPicture(names[1], "a.tar", (512, 9)),
    ]
    pictures.append(ClassPicture(names[2], "b.tar", (0, 0)))
    assert list(PictureList(pictures)) == pictures


def test_memory():
    count = 20_000
    pictures = [
        ClassPicture(f"n{i % 100:08}/n{i % 100:08}_{i}.JPEG", "train.tar", (512 * i, 100_000 + i))
        for i in range(count)
    ]
    tracemalloc.start()
    packed = PictureList(pictures)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / count < 80
    assert packed[count - 1] == pictures[-1]
