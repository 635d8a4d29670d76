"""WebDataset's shards: images get the class of the file beside them, in any order."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from botvision.datasets.folders.dataset import ClassImages
from botvision.datasets.folders.splits import find_split, in_order, read_split
from botvision.errors import BotvisionError


def png(shade):
    content = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, shade, shade)).save(content, "PNG")
    return content.getvalue()


def write_shard(path, samples, *, classes_first=False):
    """Samples are key, class and shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, number, shade in samples:
            files = [(f"{key}.png", png(shade)), (f"{key}.cls", f"{number}\n".encode())]
            files = [each for each in files if each[1] != b"None\n"]
            if classes_first:
                files.reverse()
            for name, content in (*files, (f"{key}.json", b"{}")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


SAMPLES = [("a", 10, 0), ("b", 2, 20), ("sub/c", 10, 40), ("d.left", 0, 60), ("e", 2, 80)]
# WebDataset's keys end at the first dot of the name.
EXPECTED = {0: "10", 20: "2", 40: "10", 60: "0", 80: "2"}


def found(path):
    split = read_split(path)
    shades = [int(np.asarray(split.images.read(name))[0, 0, 0]) for name in split.names]
    return dict(zip(shades, (split.classes[label] for label in split.labels), strict=True))


@pytest.mark.parametrize("classes_first", [False, True])
def test_classes_are_those_beside(tmp_path, classes_first):
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as archive:
        for key, number, shade in SAMPLES:
            stem = key.replace(".left", "")
            files = [(f"{key}.png", png(shade)), (f"{stem}.cls", str(number).encode())]
            for name, content in reversed(files) if classes_first else files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    assert found(path) == EXPECTED
    assert in_order(found(path).values()) == ("0", "2", "10")


@pytest.mark.parametrize("place", ["", "train/"])
def test_shards_of_a_split(tmp_path, place):
    name = place or "imagenet-train-"
    samples = [("a", 10, 0), ("b", 2, 20), ("c", 10, 40), ("d", 0, 60), ("e", 2, 80)]
    write_shard(tmp_path / f"{name}0000.tar", samples[:2])
    write_shard(tmp_path / f"{name}0001.tar", samples[2:4], classes_first=True)
    write_shard(tmp_path / f"{name}0010.tar", samples[4:])
    write_shard(tmp_path / "imagenet-validation-00.tar", [("a", 2, 99)])
    assert found(find_split(str(tmp_path), "train")) == EXPECTED
    assert found(find_split(str(tmp_path), "val")) == {99: "2"}
    train = ClassImages(str(tmp_path), "train")
    assert train.classes == ("0", "2", "10")
    val = ClassImages(str(tmp_path), "val", classes=train.classes)
    assert val.labels.tolist() == [1]


def test_one_name_in_two_archives_or_twice_in_one(tmp_path):
    for number, shades in enumerate([(1, 2), (3,)]):
        with tarfile.open(tmp_path / f"train-{number}.tar", "w") as archive:
            for shade in shades:
                member = tarfile.TarInfo("cat/a.png")
                member.size = len(png(shade))
                archive.addfile(member, io.BytesIO(png(shade)))
    assert found(find_split(str(tmp_path), "train")) == {1: "cat", 2: "cat", 3: "cat"}


def test_shards_without_classes_are_no_data(tmp_path):
    for number in range(2):
        write_shard(tmp_path / f"train-{number}.tar", [("a", None, 1)])
    with pytest.raises(BotvisionError, match="expected images in a folder for each class"):
        read_split(find_split(str(tmp_path), "train"))


@pytest.mark.parametrize(
    ("number", "expected"), [(None, r"b\.png: expected b\.cls beside it"), ("cat", "got 'cat'")]
)
def test_classes_that_are_wrong(tmp_path, number, expected):
    write_shard(tmp_path / "train.tar", [("a", 1, 0), ("b", number, 0)])
    with pytest.raises(BotvisionError, match=expected) as caught:
        read_split(tmp_path / "train.tar")
    assert str(tmp_path / "train.tar") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["wds/imagenet", "hfids/imagenet-1k", "pipe:cat"])
def test_streams_are_named(source):
    with pytest.raises(BotvisionError, match="copy the data to a folder") as caught:
        find_split(source, "train")
    assert source in str(caught.value)
