"""COCO files as a whole: their encoding, other kinds of files, and images named twice."""

import codecs
import json

import pytest

from botvision.datasets.coco import file
from botvision.datasets.coco.file import read_annotations
from botvision.errors import BotvisionError


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-16-le", "utf-16-be"],
)
@pytest.mark.parametrize("cached", [False, True])
def test_a_byte_order_mark(content, tmp_path, monkeypatch, encode, cached):
    from botvision.datasets.coco import cache

    if cached:
        monkeypatch.setattr(cache, "LARGE", 0)
        monkeypatch.setenv("BOTVISION_CACHE", str(tmp_path / "cache"))
    content["categories"][0]["name"] = "Größe"
    path = tmp_path / "a.json"
    path.write_bytes(encode(json.dumps(content, ensure_ascii=False)))
    for _ in range(2):
        annotations = read_annotations(path)
        assert len(annotations.instances[11]) == 1
        assert "Größe" in [each.name for each in annotations.categories]


def test_a_mark_does_not_make_reading_slow(content, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes(codecs.BOM_UTF8 + json.dumps(content).encode())
    monkeypatch.setattr(file, "read_json", None)
    assert len(read_annotations(path).images) == 1


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (
            {"image_id": 11, "file_name": "a.png", "segments_info": [{"bbox": [1, 2, 3, 4]}]},
            "panop",
        ),
        ({"id": 1, "image_id": 11, "caption": "a dog"}, "captions"),
    ],
)
def test_another_kind_of_file_is_one_line(content, write, record, word):
    from botvision.datasets.check.report import check_folder

    content["annotations"] = [record] * 30
    (error,) = [
        each.message
        for each in check_folder(write(), ["train"], num_workers=0).all_findings()
        if each.severity == "error"
    ]
    assert word in error
    assert "instances_*.json" in error


def test_keypoints_are_instances(content, read):
    content["annotations"][0] |= {"keypoints": [1, 2, 2] * 17, "num_keypoints": 17, "caption": ""}
    assert len(read().instances[11]) == 1


@pytest.mark.parametrize("name", ["a.png", "./a.png", ".\\a.png"])
def test_one_image_in_two_records(content, annotate, tmp_path, name):
    content["images"].append({"id": 101, "file_name": name, "width": 40, "height": 30})
    annotate(image_id=101)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    found = []
    file.read_arrays(path, found.append)
    (finding,) = found
    assert finding.severity == "counted"
    assert "is named by images 11 and 101" in finding.message
    assert read_annotations(path).tally.noted.total() == 1


def test_training_says_what_it_leaves_out(content, annotate, write):
    from botvision.datasets.check.training import check_contents
    from botvision.datasets.coco.dataset import CocoInstances

    annotate(101)
    annotate(102, bbox=[4, 5, 0, 10])
    annotate(103, bbox=[30, 5, 20, 10])
    data = CocoInstances(write(), "train")
    notes = check_contents(data, trained_on=True, masks=True)
    left_out, boxes = notes
    assert left_out == (
        "instances_train.json: 1 of 4 annotations left out: box without area inside the image; "
        "1 of 4 annotations left out: the same as another annotation (image, class, box and "
        "outline); 1 boxes clipped at the image's edge"
    )
    assert boxes == (
        "instances_train.json: 2 of 2 instances have no segmentation: their boxes are taken as "
        "masks; for boxes alone set model.detector=faster_rcnn"
    )
    assert check_contents(data, trained_on=True, masks=False) == notes[:1]


def test_nothing_to_train_on_is_an_error_before_the_run(content, write):
    from botvision.datasets.check.training import check_contents
    from botvision.datasets.coco.dataset import CocoInstances

    content["annotations"][0]["iscrowd"] = 1
    data = CocoInstances(write(), "train")
    with pytest.raises(BotvisionError, match=r"no instance to train on: 1 of 1 .* are crowds"):
        check_contents(data, trained_on=True, masks=True)
    (note,) = check_contents(data, trained_on=False, masks=True)
    assert "no instance to evaluate on" in note
    assert "metrics are undefined" in note
