"""COCO folders as shards: the same data set, WebDataset's files, few of them at a time."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.datasets.check.report import check_folder
from botvision.datasets.check.training import check_images
from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.coco.sharding import shard_coco
from botvision.errors import BotvisionError

SIZES = [(48, 64), (64, 48), (31, 33), (40, 40), (20, 70), (48, 48), (33, 65)]


def ignore(*_):
    pass


@pytest.fixture
def folder(write_coco, random_polygons):
    """Seven training images, the last without annotations; five of validation."""
    images = [
        {"id": 10 * i, "file_name": f"{i}.png", "height": h, "width": w, "license": i}
        for i, (h, w) in enumerate(SIZES)
    ]
    annotations = []
    for image in images[:-1]:
        rng = np.random.default_rng(image["id"])
        size = {key: image[key] for key in ("height", "width")}
        annotations += random_polygons(rng, 3, image_id=image["id"], **size)
    annotations.append({"image_id": 10, "category_id": 1, "bbox": [3, 3, 0, 4]})  # skipped
    val = [{**image, "file_name": f"v{image['file_name']}"} for image in images[4::-1]]
    write_coco(val, split="val")
    return write_coco(images, annotations)


@pytest.fixture
def shards(folder, tmp_path):
    shard_coco(folder, tmp_path / "shards", shard_size=20_000, progress=ignore)
    return tmp_path / "shards"


def items(folder, split="train"):
    data = CocoInstances(folder, split)
    found = {}
    for index in range(len(data)):
        image, target = data[0, index]
        found[target.pop("image_id")] = (image, target)
    return found


def test_shards_are_the_same_data_set(folder, shards):
    whole, sharded = items(folder), items(shards)
    assert whole.keys() == sharded.keys()
    for image_id, (image, target) in whole.items():
        assert torch.equal(image, sharded[image_id][0])
        for key, value in target.items():
            assert torch.equal(value, sharded[image_id][1][key])
    assert list(items(shards, "val")) == list(items(folder, "val"))
    assert list(sharded) != list(whole)


def test_annotation_file_keeps_what_it_holds(folder, shards):
    before, after = (
        json.loads((each / "annotations" / "instances_train.json").read_text())
        for each in (folder, shards)
    )
    assert before.pop("images") == sorted(after.pop("images"), key=lambda image: image["id"])
    assert before == after


def test_files_are_those_of_webdataset(folder, shards):
    content = json.loads((shards / "annotations" / "instances_train.json").read_text())
    paths = sorted((shards / "images" / "train").glob("*.tar"))
    assert len(paths) > 2
    seen = []
    for path in paths:
        with tarfile.open(path, "r:") as archive:
            names = archive.getnames()
            files = {name: archive.extractfile(name).read() for name in names}
        for image, labels in zip(names[::2], names[1::2], strict=True):
            assert image.removesuffix(".png") == labels.removesuffix(".json")
            sample = json.loads(files[labels])
            assert files[image] == (folder / "images" / sample["image"]["file_name"]).read_bytes()
            own = [a for a in content["annotations"] if a["image_id"] == sample["image"]["id"]]
            assert sample["annotations"] == own
            seen.append(sample["image"])
    assert seen == content["images"]


def test_writing_twice_gives_the_same_bytes(folder, shards, tmp_path):
    shard_coco(folder, tmp_path / "again", shard_size=20_000, progress=ignore)
    files = [p.relative_to(shards) for p in shards.rglob("*") if p.is_file()]
    assert len(files) > 6
    for file in files:
        assert (shards / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_counts_and_progress(folder, tmp_path):
    told = []
    counts = shard_coco(
        folder, tmp_path / "one", shard_size=10**9, progress=lambda *step: told.append(step)
    )
    assert counts == {"train": (7, 1), "val": (5, 1)}
    assert told[:7] == [("write train", done, 7) for done in range(1, 8)]
    assert told[7:] == [("write val", done, 5) for done in range(1, 6)]


def test_lengths_of_the_shards(shards):
    data = CocoInstances(shards, "train")
    counts = []
    for path in sorted((shards / "images" / "train").glob("*.tar")):
        with tarfile.open(path) as archive:
            counts.append(sum(name.endswith(".png") for name in archive.getnames()))
    assert data.shard_lengths == tuple(counts)
    first = data.annotations.images[0]["id"]
    data.leave_out([first])
    lengths = [length for length in (counts[0] - 1, *counts[1:]) if length]
    assert data.shard_lengths == tuple(lengths)


def test_another_order_of_the_file_is_shuffled_as_a_whole(shards):
    path = shards / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["images"] = content["images"][::2] + content["images"][1::2]
    path.write_text(json.dumps(content))
    assert CocoInstances(shards, "train").shard_lengths == ()
    assert len(items(shards)) == 7


def test_folders_have_no_shards(folder):
    assert CocoInstances(folder, "train").shard_lengths == ()


def test_pasted_instances_come_from_the_same_shard(folder, tmp_path):
    shard_coco(folder, tmp_path / "two", shard_size=35_000, progress=ignore)
    data = CocoInstances(tmp_path / "two", "train")
    assert max(data.shard_lengths) > 1
    ends = np.cumsum(data.shard_lengths)
    read = []
    original = data._read
    data._read = lambda index: read.append(index) or original(index)
    data.copy_paste = 1.0
    for index in range(len(data)):
        partners = set()
        for epoch in range(20):
            read.clear()
            _ = data[epoch, index]
            partners |= set(read[1:])
        shard = np.searchsorted(ends, index, side="right")
        same = set(range(ends[shard] - data.shard_lengths[shard], ends[shard])) - {index}
        assert partners == same


def test_check_reads_the_shards(shards):
    options = {"image_size": 64, "num_workers": 0, "progress": ignore}
    report = check_folder(shards, **options)
    assert report.trainable
    summary = report.splits["train"].summary()
    assert summary["image_files"] == {"total": 7, "accepted": 7, "skipped": 0, "refused": 0}
    assert summary["images_read"]


def test_bad_image_in_a_shard_is_left_out(folder, tmp_path):
    (folder / "images" / "2.png").write_text("no image")
    (folder / "images" / "4.png").write_bytes(b"")
    with pytest.raises(BotvisionError, match=r"4\.png: expected an image, got a file of zero"):
        shard_coco(folder, tmp_path / "out", shard_size=20_000, progress=ignore)
    assert not (tmp_path / "out").exists()
    Image.new("RGB", (70, 20)).save(folder / "images" / "4.png")
    shard_coco(folder, tmp_path / "out", shard_size=20_000, progress=ignore)
    data = CocoInstances(tmp_path / "out", "train")
    bad = [image["file_name"] for image in data.annotations.images].index("2.png")
    with pytest.raises(BotvisionError, match=r"\d+\.tar: 2\.png: expected an image"):
        _ = data[0, bad]
    note = check_images(data, skip_bad=True)
    assert "1 of 7 images" in note
    assert "2.png" in note
    assert len(data) == sum(data.shard_lengths) == 6


def test_one_image_of_two_records_is_an_error(folder, tmp_path):
    path = folder / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 1000})
    path.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=r"file_name '0\.png': expected a record for each"):
        shard_coco(folder, tmp_path / "out", shard_size=20_000, progress=ignore)


def test_image_that_the_index_lacks(shards):
    path = shards / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"3.png"', '"33.png"'))
    data = CocoInstances(shards, "train")
    expected = r"index\.json: 33\.png: no such image in .*index\.json"
    with pytest.raises(BotvisionError, match=expected):
        check_images(data)
    place = [image["file_name"] for image in data.annotations.images].index("33.png")
    with pytest.raises(BotvisionError, match=expected):
        _ = data[0, place]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda text: text[:-9], "index.json: Input data was truncated"),
        (
            lambda text: text.replace("shards 1", "shards 9"),
            "format: expected 'botvision shards 1'",
        ),
        (lambda text: text.replace("00000.tar", "../0.tar"), "expected the name of a tar file"),
        (lambda text: text.replace('"5.png",', '"5.png",9'), "expected a range of the"),
        (lambda text: text.replace('"5.png"', '"4.png"'), "image '4.png': occurs twice"),
        (lambda text: '{"format":"botvision shards 1","shards":[]}', "at least one image"),
    ],
)
def test_damaged_index_is_one_line(shards, edit, expected):
    path = shards / "images" / "train" / "index.json"
    path.write_text(edit(path.read_text()))
    with pytest.raises(BotvisionError) as caught:
        CocoInstances(shards, "train")
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [False, True])
def test_shard_that_is_missing_or_cut_is_never_skipped(shards, cut):
    path = sorted((shards / "images" / "train").glob("*.tar"))[1]
    path.write_bytes(path.read_bytes()[:600]) if cut else path.unlink()
    data = CocoInstances(shards, "train")
    expected = "got fewer" if cut else "no such shard"
    with pytest.raises(BotvisionError, match=rf"{path.name}: .*{expected}"):
        check_images(data, skip_bad=True)


def test_images_of_shards_are_upright(write_coco, tmp_path):
    folder = write_coco([{"id": 1, "file_name": "a.jpg", "height": 30, "width": 20}])
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 0, 0)).save(content, "jpeg", exif=exif)
    (folder / "images" / "a.jpg").write_bytes(content.getvalue())
    shard_coco(folder, tmp_path / "out", shard_size=1, progress=ignore)
    assert CocoInstances(tmp_path / "out", "train")[0, 0][0].shape == (3, 30, 20)
