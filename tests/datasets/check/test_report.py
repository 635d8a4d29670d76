"""The check of a folder: clean folders, duplicates, splits, images, and training's own check."""

import json
import shutil

import pytest
from PIL import Image

from botvision.datasets.check.report import check_folder, save_figures
from botvision.datasets.check.training import check_images
from botvision.datasets.coco.dataset import CocoInstances
from botvision.errors import BotvisionError

RECORDS = [{"id": i, "file_name": f"{i}.png", "width": 64 + i, "height": 48} for i in range(1, 6)]


OUTLINE = [[4, 5, 24, 5, 24, 35, 4, 35]]


def box(image_id, **changes):
    return {
        "image_id": image_id,
        "category_id": 5,
        "bbox": [4, 5, 20, 30],
        "segmentation": OUTLINE,
        **changes,
    }


def check(folder, *splits, **options):
    given = {"image_size": 64, "num_workers": 0, "progress": lambda what, done, total: None}
    return check_folder(folder, splits, **{**given, **options})


@pytest.fixture
def folder(write_coco):
    write_coco(RECORDS[:3], [box(i) for i in (1, 2, 3)])
    return write_coco(RECORDS[3:], [box(4), box(5)], split="val")


def test_a_clean_folder(folder, tree):
    before = tree(folder)
    calls = []
    report = check(folder, progress=lambda *call: calls.append(call))
    assert report.trainable
    assert report.all_findings() == []
    assert list(report.splits) == ["train", "val"]
    assert report.splits["train"].summary()["instances_per_class"] == {"dog": 3, "cat": 0, "cup": 0}
    assert calls[-1] == ("read images of val", 2, 2)
    assert tree(folder) == before


def test_workers_find_the_same(folder):
    (folder / "images" / "2.png").write_text("no image")
    alone, together = (check(folder, num_workers=num_workers).as_json() for num_workers in (0, 2))
    assert alone == together
    assert not alone["trainable"]


def test_fast_looks_into_no_image(folder):
    (folder / "images" / "2.png").write_text("no image")
    assert check(folder, contents=False).trainable
    (folder / "images" / "2.png").unlink()
    assert not check(folder, contents=False).trainable


def test_images_of_training_in_validation(folder):
    shutil.copy(folder / "images" / "1.png", folder / "images" / "4.png")
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["images"][0]["width"] = 65
    path.write_text(json.dumps(content))
    (finding,) = check(folder).all_findings()
    assert (finding.severity, finding.id) == ("counted", 4)
    assert finding.said.endswith("images/1.png")


def test_a_missing_split_and_other_categories(folder, write_coco):
    write_coco(RECORDS[3:], [box(4), box(5)], categories=[{"id": 5, "name": "fox"}], split="val")
    (finding,) = check(folder).all_findings()
    assert (finding.severity, finding.field) == ("error", "categories")
    (folder / "annotations" / "instances_val.json").unlink()
    assert not check(folder).trainable
    assert check(folder, "train").trainable


def test_the_images(folder, tmp_path):
    report = check(folder)
    written = save_figures(report, tmp_path / "out" / "images")
    assert [path.name for path in written] == [
        f"{split}_{name}"
        for split in ("train", "val")
        for name in ("statistics.png", "samples.jpg")
    ]
    with Image.open(written[1]) as samples:
        assert min(samples.size) > 300


def test_training_leaves_out_what_cannot_be_read(folder):
    names = ["1.png", "3.png"]
    (folder / "images" / names[0]).write_text("no image")
    data = CocoInstances(folder, "train")
    assert check_images(data) == ""  # only a look at the files
    (folder / "images" / names[1]).unlink()
    with pytest.raises(BotvisionError, match=r"3\.png: no such image.*data check"):
        check_images(data)
    note = check_images(data, skip_bad=True)
    assert note.startswith("2 of 3 images of instances_train.json left out")
    assert len(data) == 1
    assert data[0, 0][1]["image_id"] == 2
    assert list(data.annotations.instances) == [2]
    assert data.annotations.skipped == {"image that cannot be read": 2}


def test_training_without_any_readable_image(folder):
    for number in (1, 2, 3):
        (folder / "images" / f"{number}.png").write_text("no image")
    with pytest.raises(BotvisionError, match="no image can be read"):
        check_images(CocoInstances(folder, "train"), skip_bad=True)
