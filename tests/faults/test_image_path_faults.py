"""File names of COCO records as other systems and computers write them."""

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from botvision.datasets.check.report import check_folder
from botvision.datasets.coco.dataset import CocoInstances
from botvision.shards.read import FolderImages


@pytest.fixture
def dataset(tmp_path, content):
    """A function that writes train and val, whose image has a path and is called by a name."""

    def run(path, name):
        folder = tmp_path / "coco"
        (folder / "annotations").mkdir(parents=True)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(folder / path)
        content["images"][0]["file_name"] = name
        content["annotations"][0]["segmentation"] = [[4, 5, 14, 5, 14, 25, 4, 25]]
        for split in ("train", "val"):
            (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return folder

    return run


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("images/a.png", "images\\a.png"),
        ("images/a.png", ".\\a.png"),
        ("images/train/a.png", "train\\a.png"),
        ("images/a.png", "C:\\Users\\me\\data\\images\\a.png"),
        ("images/train/a.png", "D:\\data\\train\\a.png"),
        ("images/a.png", "/home/me/data/images/a.png"),
        ("images/a.png", "/content/drive/MyDrive/data/a.png"),
        ("images/" + unicodedata.normalize("NFD", "größe.png"), "größe.png"),
        ("images/" + unicodedata.normalize("NFC", "größe.png"), "gro\u0308ße.png"),
    ],
)
def test_paths_of_other_computers(dataset, path, name):
    folder = dataset(path, name)
    report = check_folder(folder, ["train"], num_workers=0, image_size=64)
    assert [each.message for each in report.all_findings() if each.severity == "error"] == []
    data = CocoInstances(folder, "train")
    image, _ = data[0, 0]
    assert image.shape == (3, 30, 40)
    assert Path(data.images.where(name)) == folder / path
    assert data.images.content(name) == (folder / path).read_bytes()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.png", "..\\a.png"),
        ("a.png", "../a.png"),
        ("images/b.png", "C:\\data\\..\\a.png"),
        ("a.png", "/elsewhere/../../a.png"),
    ],
)
def test_paths_that_lead_out_are_refused(dataset, path, name):
    folder = dataset(path, name)
    (folder / "images").mkdir(exist_ok=True)
    report = check_folder(folder, ["train"], num_workers=0, image_size=64)
    assert not report.trainable


def test_a_name_of_this_very_form_comes_first(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.png").write_bytes(b"of the folder")
    (tmp_path / "b\\a.png").write_bytes(b"of that name")
    assert FolderImages(tmp_path).content("b\\a.png") == b"of that name"


@pytest.mark.parametrize(
    ("there", "name"), [("a.JPG", "a.jpg"), ("A.jpg", "a.jpg"), ("a.png", "a.jpg")]
)
def test_a_similar_name_is_told(tmp_path, there, name):
    (tmp_path / there).write_bytes(b"x")
    assert FolderImages(tmp_path).missing(name) == f"no such image; there is {there}"


def test_no_split_for_validation_names_the_command(tmp_path, content):
    from botvision.datasets.layouts import find_coco_split
    from botvision.errors import BotvisionError

    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(BotvisionError) as caught:
        find_coco_split(tmp_path, "val")
    assert str(caught.value).endswith(
        f"no split 'val' beside train/_annotations.coco.json; split that with: botvision data "
        f"convert {tmp_path} {tmp_path}_split"
    )


def test_the_sharded_set_is_the_same(dataset, tmp_path):
    from botvision.datasets.coco.sharding import shard_coco

    folder = dataset("images/a.png", "images\\a.png")
    for path in (folder / "annotations").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    shard_coco(folder, tmp_path / "shards", shard_size=2**20)
    one, other = (CocoInstances(each, "train")[0, 0] for each in (folder, tmp_path / "shards"))
    assert (one[0] == other[0]).all()
    assert (one[1]["boxes"] == other[1]["boxes"]).all()


@pytest.mark.parametrize("path", ["val2017/a.png", "images/val2017/a.png"])
def test_lvis_has_addresses_for_names(dataset, path):
    folder = dataset(path, "a.png")
    annotations = folder / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    del content["images"][0]["file_name"]
    content["images"][0]["coco_url"] = "http://images.cocodataset.org/val2017/a.png"
    annotations.write_text(json.dumps(content))
    image, _ = CocoInstances(folder, "val")[0, 0]
    assert image.shape == (3, 30, 40)
