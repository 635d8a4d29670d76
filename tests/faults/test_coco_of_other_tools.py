"""COCO files of other tools: how they name splits and images, number classes, and are encoded."""

import codecs
import json

import pytest
from PIL import Image

from botvision.datasets.check.report import check_folder
from botvision.datasets.formats.convert import convert
from botvision.datasets.layouts import find_coco_split
from botvision.errors import BotvisionError

NAMES = ["p0.png", "p1.png", "p2.png", "p3.png"]
TRIANGLE = [[10, 8, 50, 8, 50, 38]]


def coco(names, categories=("card", "sail"), **changes):
    """COCO content with one card on each image; the ids of categories are their order."""
    ids = {name: number for number, name in enumerate(categories, start=1)}
    return {
        "images": [
            {"id": number, "file_name": name, "width": 60, "height": 40}
            for number, name in enumerate(names)
        ],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [
            {"id": number, "image_id": number, "category_id": ids["card"], "area": 1200,
             "bbox": [10, 8, 40, 30], "iscrowd": 0, "segmentation": TRIANGLE, **changes}
            for number in range(len(names))
        ],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A function of contents by path that gives a folder with images of the names there."""

    def make(files, images=tuple(f"images/{name}" for name in NAMES), encoding="utf-8"):
        root = tmp_path / "set"
        for name in images:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40)).save(root / name)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content)
            (root / name).write_bytes(text.encode(encoding))
        return root

    return make


def converted(root):
    """Annotations by image name, and the report."""
    out = root.with_name("out")
    report = convert(root, out)
    found = {}
    for path in sorted((out / "annotations").iterdir()):
        content = json.loads(path.read_text())
        names = {each["id"]: each["name"] for each in content["categories"]}
        for image in content["images"]:
            found[image["file_name"].rpartition("/")[2]] = [
                (names[each["category_id"]], each["bbox"], each["segmentation"])
                for each in content["annotations"]
                if each["image_id"] == image["id"]
            ]
    return found, report


ONE_CARD = [("card", [10, 8, 40, 30], TRIANGLE)]

WHOLE = {
    "CVAT, in a folder of the subset": (
        "annotations/instances_default.json", "images/default/{}", "{}",
    ),
    "in a folder of annotations": ("annotations/coco.json", "photos/{}", "{}"),
    "an archive's folder": ("set/annotations/coco.json", "set/images/{}", "{}"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_set_in_one_file(folder, tree, name):
    file, image, written = WHOLE[name]
    root = folder(
        {file: coco([written.format(each) for each in NAMES])},
        [image.format(each) for each in NAMES],
    )
    for ask in (lambda: find_coco_split(root, "train"), lambda: find_coco_split(root, "val")):
        with pytest.raises(BotvisionError) as caught:
            ask()
        assert f"botvision data convert {root} {root}_split" in str(caught.value)
        assert "\n" not in str(caught.value)
    before = tree(root)
    found, report = converted(root)
    assert found == dict.fromkeys(NAMES, ONE_CARD)
    assert report.images == {"train": 3, "val": 1}
    assert tree(root) == before


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("annotations/instances_Train.json", "annotations/instances_Validation.json"),
        ("Train/result.json", "Val/result.json"),
        ("train.json", "valid.json"),
        ("annotations/my_train_2.json", "annotations/my_val_2.json"),
        ("coco_training.json", "coco_eval.json"),
        ("annotations/TRAIN.json", "annotations/TEST.json"),
        ("trainset.json", "valset.json"),
        ("cardsTrain.json", "cardsVal.json"),
        ("train/annotations/instances_default.json", "val/annotations/instances_default.json"),
    ],
)
def test_splits_of_any_case_and_name(folder, train, val):
    root = folder({train: coco(NAMES[:2]), val: coco(NAMES[2:])})
    found, report = converted(root)
    assert found == dict.fromkeys(NAMES, ONE_CARD)
    assert report.images == {"train": 2, "val": 2}
    assert check_folder(root, contents=False).trainable


@pytest.mark.parametrize(
    "written",
    [
        "../../label-studio/data/media/upload/1/{}",
        "/data/local-files/?d=photos/{}",
        "https://example.org/data/{}",
        "my_project/photos/{}",
        "C:\\work\\{}",
    ],
)
def test_images_that_were_moved(folder, written):
    """They are found by their names, where these are unique."""
    images = [f"images/{number % 2}/{name}" for number, name in enumerate(NAMES)]
    root = folder({"result.json": coco([written.format(name) for name in NAMES])}, images)
    found, report = converted(root)
    assert found == dict.fromkeys(NAMES, ONE_CARD)
    assert any("images are not where it says" in note for note in report.notes)


def test_a_moved_image_of_a_name_that_is_not_unique(folder):
    written = [f"https://example.org/data/{name}" for name in NAMES]
    images = [f"images/{name}" for name in NAMES]
    root = folder({"result.json": coco(written)}, [*images, "images/old/p0.png"])
    with pytest.raises(BotvisionError, match="image 0: file_name: expected the image https"):
        convert(root, root.with_name("out"))


def test_images_beside_the_annotations_of_each_split(folder):
    root = folder(
        {f"{split}/labels/coco.json": coco(NAMES) for split in ("train", "val")},
        [f"{split}/images/{name}" for split in ("train", "val") for name in NAMES],
    )
    found = {split: find_coco_split(root, split).images for split in ("train", "val")}
    assert found == {split: root / split / "images" for split in ("train", "val")}


@pytest.mark.parametrize("name", ["train_val.json", "trainval.json", "annotations/train+val.json"])
def test_a_file_of_several_splits(folder, name):
    """It is no split: what is validated on would be trained on."""
    root = folder({name: coco(NAMES)})
    with pytest.raises(BotvisionError, match="holds all images; split them with"):
        find_coco_split(root, "val")
    assert converted(root)[1].images == {"train": 3, "val": 1}


def test_several_files_without_a_split(folder):
    root = folder({"a.json": coco(NAMES[:2]), "b.json": coco(NAMES[2:])})
    with pytest.raises(BotvisionError, match=r"expected one COCO file, .* got a\.json, b\.json"):
        convert(root, root.with_name("out"))


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_byte_order_marks(folder, mark):
    encoding = {codecs.BOM_UTF8: "utf-8-sig"}.get(mark, "utf-16")
    root = folder({"train.json": coco(NAMES[:2]), "val.json": coco(NAMES[2:])}, encoding=encoding)
    assert check_folder(root).trainable
    assert converted(root)[0] == dict.fromkeys(NAMES, ONE_CARD)


def test_another_encoding(folder):
    content = json.dumps(coco(NAMES, ("card", "卡片")), ensure_ascii=False)
    root = folder({"train.json": content, "val.json": coco(NAMES)}, encoding="gb18030")
    (finding,) = check_folder(root).splits["train"].findings[:1]
    assert "train.json: expected UTF-8" in finding.message
    assert "iconv -f gb18030 -t utf-8" in finding.message
    with pytest.raises(BotvisionError, match="iconv -f gb18030 -t utf-8"):
        convert(root, root.with_name("out"))


def test_classes_are_matched_by_name(folder):
    """Each file has its own ids; a class that one file lacks or adds does no harm."""
    val = coco(NAMES[2:], ("sail", "card", "buoy"))
    root = folder({"train.json": coco(NAMES[:2]), "val.json": val})
    found, report = converted(root)
    assert found == dict.fromkeys(NAMES, ONE_CARD)
    assert report.per_class == {"card": 4, "sail": 0, "buoy": 0}
    assert any("by their names" in note for note in report.notes)
    assert any("not in the other splits: buoy" in note for note in report.notes)
    lists = [
        json.loads((root.with_name("out") / f"annotations/instances_{split}.json").read_text())
        for split in ("train", "val")
    ]
    assert lists[0]["categories"] == lists[1]["categories"]


def test_ids_of_floating_point(folder):
    content = coco(NAMES, category_id=1.0)
    for record in content["images"]:
        record["id"] = float(record["id"])
    for record in content["annotations"]:
        record["image_id"] = float(record["image_id"])
    assert converted(folder({"annotations.json": content}))[0] == dict.fromkeys(NAMES, ONE_CARD)


@pytest.mark.parametrize("field", ["image_id", "category_id"])
def test_ids_as_text(folder, field):
    content = coco(NAMES)
    for record in content["annotations"]:
        record[field] = str(record[field])
    assert converted(folder({"annotations.json": content}))[0] == dict.fromkeys(NAMES, ONE_CARD)


@pytest.mark.parametrize("file", ["annotations.json", "annotations/instances_train.json"])
def test_a_panoptic_file(folder, file):
    content = coco(NAMES)
    content["annotations"] = [{"image_id": 0, "file_name": "p0.png", "segments_info": []}]
    with pytest.raises(BotvisionError, match=r"panoptic .*use its instances_\*\.json"):
        convert(folder({file: content}), folder({}).with_name("out"))


def test_all_faults_at_once_and_the_rules_of_training(folder):
    """What training refuses is not converted."""
    content = coco([*NAMES, "p4.png"])
    content["annotations"][0]["segmentation"] = [[10, "8", "x", 8, 50, 38]]
    content["annotations"][1]["bbox"] = [10, 8, "wide", 30]
    content["images"][2]["file_name"] = "none.png"
    root = folder({"annotations.json": content}, [f"images/p{i}.png" for i in range(5)])
    with pytest.raises(BotvisionError) as caught:
        convert(root, root.with_name("out"))
    for words in ("annotation 0: segmentation", "annotation 1: bbox", "image 2: file_name"):
        assert words in str(caught.value)
    assert not root.with_name("out").exists()
    report = convert(root, root.with_name("out"), skip_bad=True)
    assert (report.images_left_out, report.total) == (3, 2)
