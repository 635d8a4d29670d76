"""Compact lists give back the strings that went in, for little memory."""

import os
import tracemalloc

import pytest

from botvision.shards.index import Shard
from botvision.shards.read import ShardedImages
from botvision.texts import Names

STRANGE = os.fsdecode(b"gr\xf6n")  # Latin-1, which is not UTF-8


@pytest.mark.parametrize("names", [[], ["кот/1.png", f"{STRANGE}/2.png", "猫/3.png", "", "\ud800"]])
def test_names_come_back(names):
    packed = Names(names)
    assert list(packed) == names
    assert [packed[place] for place in range(-len(names), 0)] == names
    with pytest.raises(IndexError):
        packed[len(names)]


def test_memory_of_images_in_shards(tmp_path):
    names = [f"n{i % 100:08}/n{i % 100:08}_{i}.JPEG" for i in range(20_000)]
    images = [(name, 512 * i, 100_000 + i) for i, name in enumerate(names)]
    shard = Shard("train.tar", 0, "", images)
    tracemalloc.start()
    packed = ShardedImages(tmp_path, [shard])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / len(images) < 80
    assert list(packed.names) == names
    assert packed.shard(names[7]) == 0
    assert "no such image" in packed.missing("a.png")
