"""Class folders as shards: the same images and classes, and WebDataset's files."""

import shutil
import tarfile
from collections import Counter

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from botvision.datasets.folders.dataset import ClassImages
from botvision.datasets.folders.sharding import shard_classes
from botvision.errors import BotvisionError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BOTVISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shard(tmp_path):
    """Writes shards of about 40 images."""

    def write(folder, out=tmp_path / "shards"):
        return out, shard_classes(str(folder), out, shard_size=60_000, progress=lambda *_: None)

    return write


def images(folder, split):
    data = ClassImages(str(folder), split)
    data.transform = F.pil_to_tensor
    return data, {data.name(i): data[0, i][:2] for i in range(len(data))}


@pytest.mark.parametrize("form", ["shapes", "archives"])
def test_shards_are_the_same_data_set(form, shard, request):
    folder = request.getfixturevalue(form)
    out, counts = shard(folder)
    assert {split: number for split, (number, _) in counts.items()} == {"train": 120, "val": 36}
    for split in ("train", "val"):
        assert counts[split][1] == len(list((out / split).glob("*.tar"))) >= 2
        (before, wanted), (after, found) = images(folder, split), images(out, split)
        assert after.classes == before.classes
        assert sum(after.shard_lengths) == len(after)
        assert before.shard_lengths == ()
        assert {name.removeprefix("./") for name in wanted} == {
            name.removeprefix("./") for name in found
        }
        for name, (image, label) in wanted.items():
            assert torch.equal(image, found[name][0])
            assert label == found[name][1]


def test_shards_of_training_hold_all_classes_and_are_webdatasets(shapes, shard):
    out, _ = shard(shapes)
    names = (out / "classes.txt").read_text().split()
    assert names == ["circle", "cross", "square"]
    data, _ = images(out, "train")
    place = 0
    for path in sorted((out / "train").glob("*.tar")):
        with tarfile.open(path, "r:") as archive:
            members = archive.getnames()
            for image, label in zip(members[::2], members[1::2], strict=True):
                assert image.removesuffix(".png") == label.removesuffix(".cls")
                number = int(archive.extractfile(label).read())
                name = data.name(place)
                assert name.split("/")[0] == names[number]
                content = archive.extractfile(image).read()
                assert content == (shapes / "train" / name).read_bytes()
                place += 1
    assert place == len(data) == 120
    first = Counter(data.name(i).split("/")[0] for i in range(data.shard_lengths[0]))
    assert set(first) == set(names)


def test_from_an_address(shapes, shard, cache):
    out, _ = shard(shapes)
    folder = f"file://{out}"
    data = ClassImages(folder, "train")
    assert list(cache.rglob("*.tar")) == []
    assert data.shard_lengths == ClassImages(str(out), "train").shard_lengths
    assert data.shard_files is not None
    assert data.shard_files.fetched
    _, wanted = images(out, "train")
    _, found = images(folder, "train")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name][0], wanted[name][0]) for name in found)


def test_bad_image_is_left_out_and_a_bad_shard_is_not(shapes, shard, tmp_path):
    folder = tmp_path / "spoilt"
    shutil.copytree(shapes, folder)
    (folder / "train" / "cross" / "7.png").write_text("no image")
    out, _ = shard(folder)
    data = ClassImages(str(out), "train", skip_bad=True)
    assert len(data) == sum(data.shard_lengths) == 119
    held = Counter(data.shard(index) for index in range(119))
    assert [held[number] for number in sorted(held)] == list(data.shard_lengths)
    assert len(data.skipped) == 1
    assert ".tar: cross/7.png: expected an image" in data.skipped[0]
    (out / "train" / "00001.tar").unlink()
    with pytest.raises(BotvisionError, match=r"00001\.tar: no such shard"):
        ClassImages(str(out), "train", skip_bad=True)


def test_class_that_training_lacks_writes_nothing(shapes, shard, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(shapes, folder)
    shutil.copytree(folder / "val" / "cross", folder / "val" / "star")
    with pytest.raises(BotvisionError, match="class 'star': expected the 3 classes of"):
        shard(folder)
    assert not (tmp_path / "shards").exists()


def test_data_sets_of_the_hub_are_no_folders(shard):
    with pytest.raises(BotvisionError, match="hfds/cifar10: expected class folders"):
        shard("hfds/cifar10")
