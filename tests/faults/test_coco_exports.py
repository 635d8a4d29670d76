"""Folders of COCO files as tools export them, with and without splits."""

import json
import shlex

import pytest
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.datasets.layouts import coco_splits, detect_layout, find_coco_split
from botvision.errors import BotvisionError

CATEGORIES = [{"id": 1, "name": "card"}, {"id": 2, "name": "sail"}]


def coco(*names, categories=CATEGORIES, start=1, **fields):
    images = [
        {"id": start + i, "file_name": name, "width": 120, "height": 80}
        for i, name in enumerate(names)
    ]
    annotations = [
        {
            "id": start + i,
            "image_id": start + i,
            "category_id": categories[0]["id"],
            "bbox": [10, 8, 40, 30],
            "area": 1200,
            "iscrowd": 0,
            "segmentation": [[10, 8, 50, 8, 50, 38, 10, 38]],
        }
        for i in range(len(names))
    ]
    return {"images": images, "annotations": annotations, "categories": categories, **fields}


@pytest.fixture
def make(tmp_path):
    """A function of contents by path that gives a folder; an image needs none."""

    def run(files, name="set"):
        folder = tmp_path / name
        for each, content in files.items():
            path = folder / each
            path.parent.mkdir(parents=True, exist_ok=True)
            if each.lower().endswith((".png", ".jpg")):
                Image.new("RGB", (120, 80)).save(path)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    return run


def both(path, **fields):
    """Files of a set without splits, of two images in images/."""
    return {path: coco("p0.png", "p1.png", **fields), "images/p0.png": "", "images/p1.png": ""}


WHOLE = {
    "CVAT's": both("annotations/instances_default.json"),
    "CVAT's with keypoints": both("annotations/instances_default.json")
    | {"annotations/person_keypoints_default.json": coco("p0.png", "p1.png")},
    "Label Studio's": {
        "result.json": coco("images/p0.png", "images/p1.png"),
        "images/p0.png": "",
        "images/p1.png": "",
    },
    "Label Studio's on Windows": {
        "result.json": coco("images\\p0.png", "images\\p1.png"),
        "images/p0.png": "",
        "images/p1.png": "",
    },
    "one file": both("annotations.json"),
    "another name": both("labels_my-project_2024-01-01.json"),
    "capitals": both("COCO.JSON"),
    "annotations of any name": both("Annotations/bees.json"),
    "images beside": {"coco.json": coco("p0.png", "p1.png"), "p0.png": "", "p1.png": ""},
    "Roboflow's": {
        "_annotations.coco.json": coco("p0.png", "p1.png"),
        "p0.png": "",
        "p1.png": "",
    },
    "labelme2coco's": {
        "annotations.json": coco("JPEGImages/p0.png", "JPEGImages/p1.png"),
        "JPEGImages/p0.png": "",
        "JPEGImages/p1.png": "",
    },
    "FiftyOne's": {"labels.json": coco("p0.png", "p1.png"), "data/p0.png": "", "data/p1.png": ""},
    "of another computer": {
        "result.json": coco("/home/me/set/images/p0.png", "D:\\set\\images\\p1.png"),
        "images/p0.png": "",
        "images/p1.png": "",
    },
    "folders of images": {
        "all.json": coco("a/p0.png", "b/p1.png"),
        "images/a/p0.png": "",
        "images/b/p1.png": "",
    },
    "with a mark": {
        "result.json": b"\xef\xbb\xbf" + json.dumps(coco("p0.png", "p1.png")).encode(),
        "images/p0.png": "",
        "images/p1.png": "",
    },
    "UTF-16": {
        "result.json": json.dumps(coco("p0.png", "p1.png")).encode("utf-16"),
        "images/p0.png": "",
        "images/p1.png": "",
    },
    "annotations first": {
        "result.json": dict(reversed(coco("p0.png", "p1.png").items())),
        "pics/p0.png": "",
        "pics/p1.png": "",
    },
    "with leftovers": both("result.json")
    | {"._result.json": b"\0\5\x16\7", "notes.json": "{}", "__MACOSX/result.json": b"\0"},
}


@pytest.mark.parametrize("files", WHOLE.values(), ids=WHOLE)
def test_one_file_without_splits(make, tmp_path, files):
    folder = make(files, "my set")
    assert detect_layout(folder).format == "coco"
    # Training names the command that makes the splits.
    for split in ("train", "val"):
        with pytest.raises(BotvisionError, match=r"no split .*split them with: ") as caught:
            find_coco_split(folder, split)
        command = shlex.split(str(caught.value).partition("with: ")[2])
        assert command == ["botvision", "data", "convert", str(folder), f"{folder}_split"]
    report = convert(folder, command[-1], val_fraction=0.5)
    assert report.images == {"train": 1, "val": 1}
    assert report.instances == {"train": 1, "val": 1}
    content = json.loads((tmp_path / "my set_split/annotations/instances_val.json").read_text())
    assert content["annotations"][0]["segmentation"] == [[10, 8, 50, 8, 50, 38, 10, 38]]


SPLIT = {
    "CVAT's subsets": (
        "annotations/instances_Train.json", "annotations/instances_Validation.json",
        "images/Train/p0.png", "images/Validation/p1.png",
    ),
    "CVAT's old subsets": (
        "annotations/instances_Train.json", "annotations/instances_Val.json",
        "images/p0.png", "images/p1.png",
    ),
    "words in names": (
        "annotations_train.json", "annotations_val.json", "images/p0.png", "images/p1.png",
    ),
    "words in capitals": ("TRAIN.json", "VAL.json", "images/p0.png", "images/p1.png"),
    "a file per folder": (
        "train/annotations.json", "val/annotations.json", "train/p0.png", "val/p1.png",
    ),
    "Roboflow's": (
        "train/_annotations.coco.json", "valid/_annotations.coco.json",
        "train/p0.png", "valid/p1.png",
    ),
    "Roboflow's in capitals": (
        "Train/_annotations.coco.json", "Valid/_annotations.coco.json",
        "Train/p0.png", "Valid/p1.png",
    ),
    "FiftyOne's by split": (
        "train/labels.json", "validation/labels.json",
        "train/data/p0.png", "validation/data/p1.png",
    ),
    "images by split": (
        "train/coco.json", "val/coco.json", "train/images/p0.png", "val/images/p1.png",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("train", "val", "first", "second"), SPLIT.values(), ids=SPLIT)
def test_splits_by_other_names(make, tmp_path, train, val, first, second):
    files = {train: coco("p0.png"), val: coco("p1.png"), first: "", second: ""}
    folder = make(files)
    splits = coco_splits(folder)
    assert {split: each.annotations for split, each in splits.items()} == {
        "train": folder / train,
        "val": folder / val,
    }
    assert (splits["train"].images / "p0.png").is_file()
    assert (splits["val"].images / "p1.png").is_file()
    report = convert(folder, tmp_path / "out")
    assert report.images == {"train": 1, "val": 1}


def test_a_set_with_train_alone(make):
    folder = make({"train/_annotations.coco.json": coco("p0.png"), "train/p0.png": ""})
    (folder.parent / "set_split").mkdir()
    with pytest.raises(
        BotvisionError, match=r"no split 'val' beside train.*split that with"
    ) as caught:
        find_coco_split(folder, "val")
    # A command that works: another folder than the one that is there.
    assert str(caught.value).endswith(f"botvision data convert {folder} {folder}_split2")


def test_the_name_that_is_there(make, tmp_path):
    folder = make({"coco.json": coco("p0.jpg", "p1.png"), "images/p0.JPG": "", "images/p1.png": ""})
    with pytest.raises(BotvisionError, match=r"image p0\.jpg, got no such file; there is p0\.JPG"):
        convert(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["set.zip", "coco.json"])
def test_a_file_for_a_folder(make, name):
    folder = make({name: b"PK"})
    with pytest.raises(BotvisionError, match="expected a data folder, got a file"):
        detect_layout(folder / name)


def test_what_is_in_no_split_is_noted(make, tmp_path):
    names = ("train", "val", "bees")
    folder = make(
        {f"annotations/instances_{name}.json": coco(f"{name}.png") for name in names}
        | {f"images/{name}.png": "" for name in names}
    )
    report = convert(folder, tmp_path / "out")
    assert report.notes == [
        "left out: 1 other COCO files: annotations/instances_bees.json",
        "left out: 1 images in no annotation file: images/bees.png",
    ]


def test_two_layouts_and_no_command_that_works(make):
    xml = "<annotation/>"
    folder = make({"Annotations/a.xml": xml, "a.json": {"shapes": [], "imagePath": "a.png"}})
    with pytest.raises(BotvisionError, match=r"Pascal VOC layout .* and labelme layout .*format"):
        find_coco_split(folder, "train")


def test_lvis_has_addresses_for_names(make, tmp_path):
    content = coco("p0.png", "p1.png")
    for record in content["images"]:
        record["coco_url"] = f"http://images.cocodataset.org/val2017/{record.pop('file_name')}"
    folder = make({"lvis.json": content, "val2017/p0.png": "", "val2017/p1.png": ""})
    assert convert(folder, tmp_path / "out", val_fraction=0.5).instances == {"train": 1, "val": 1}
