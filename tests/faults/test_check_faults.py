"""Rows of the fault corpus as ``botvision data check`` lists them: all at once, each by its id."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from botvision.datasets.check.report import check_folder
from botvision.datasets.coco.file import read_annotations
from botvision.errors import BotvisionError

POLYGON = [4, 5, 14, 5, 14, 25]


@pytest.fixture
def found(write):
    """A function that writes the content, spoils the folder and gives the check's JSON."""

    def run(spoil=lambda folder: None, **options):
        folder = write()
        spoil(folder)
        given = {"image_size": 64, "num_workers": 0, "progress": lambda what, done, total: None}
        report = check_folder(folder, ["train"], **{**given, **options})
        content = report.as_json()
        for counts in (content["splits"]["train"][part] for part in ("annotations", "image_files")):
            assert counts["accepted"] + counts["skipped"] + counts["refused"] == counts["total"]
        return content

    return run


def listed(content, severity):
    return [
        (finding["id"], finding["field"])
        for finding in content["findings"]
        if finding["severity"] == severity
    ]


def test_rows_01_to_20_all_in_one_file(content, annotate, found):
    skipped = {
        101: {"bbox": [4, 5, 0, 20]},
        102: {"bbox": [4, 25, 10, -20]},
        105: {"bbox": [41, 5, 10, 10]},
        108: {"segmentation": [[4, 5, 14, 5]]},
        109: {"segmentation": [POLYGON[:5]]},
        119: {"image_id": 12},
    }
    refused = {
        103: ("bbox", {"bbox": [4, 5, float("nan"), 20]}),
        104: ("bbox", {"bbox": [4, 5, 10]}),
        111: ("segmentation", {"segmentation": {"size": [40, 30], "counts": [1200]}}),
        112: ("segmentation", {"segmentation": {"size": [30, 40], "counts": [1199]}}),
        117: ("category_id", {"category_id": 2}),
    }
    for number, changes in skipped.items():
        annotate(number, **changes)
    for number, (_, changes) in refused.items():
        annotate(number, **changes)
    annotate(106, bbox=[35, 25, 10, 20])
    annotate(113, segmentation={"size": [30, 40], "counts": [100, 50, 1050]}, iscrowd=1)
    annotate(71)  # 18: the sound one's id
    result = found()
    assert not result["trainable"]
    fields = {108: "segmentation", 109: "segmentation", 119: "image_id"}
    assert listed(result, "skipped") == [(n, fields.get(n, "bbox")) for n in skipped]
    expected = [(n, field) for n, (field, _) in refused.items()]
    assert sorted(listed(result, "error")) == sorted([*expected, (71, "")])
    assert listed(result, "clipped") == [(106, "bbox")]
    (nan,) = [finding for finding in result["findings"] if finding["id"] == 103]
    assert nan["value"] == "[4, 5, nan, 20]"
    assert "4 finite numbers" in nan["expected"]
    summary = result["splits"]["train"]
    assert summary["annotations"] == {"total": 15, "accepted": 3, "skipped": 6, "refused": 6}
    assert (summary["crowds"], summary["clipped"]) == (1, 1)
    assert all(f["file"].endswith("instances_train.json") for f in result["findings"])


def test_the_fast_reading_lists_the_same(content, annotate, found):
    annotate(101, bbox=[4, 5, 0, 20])
    annotate(106, bbox=[35, 25, 10, 20])
    annotate(108, segmentation=[[4, 5, 14, 5]])
    annotate(119, image_id=12)
    result = found()
    assert result["trainable"]
    assert sorted(listed(result, "skipped")) == [
        (101, "bbox"),
        (108, "segmentation"),
        (119, "image_id"),
    ]
    assert listed(result, "clipped") == [(106, "bbox")]


def test_row_07_corners_written_as_sides(content, found):
    rng = np.random.default_rng(0)
    near = rng.uniform(0, (30, 20), (40, 2))
    corners = np.concatenate([near, near + rng.uniform(3, 10, (40, 2))], axis=1)
    for number, box in enumerate(corners.round(2).tolist()):
        content["annotations"].append({"id": number, "image_id": 11, "category_id": 5, "bbox": box})
    result = found()
    assert not result["trainable"]
    (error,) = [f for f in result["findings"] if f["severity"] == "error"]
    assert "[x1, y1, x2, y2]" in error["message"]


def test_row_10_instances_below_a_pixel(content, annotate, found):
    content["images"][0].update(width=640, height=480)
    annotate(72, bbox=[4, 5, 9, 20])  # a tenth of it is below a pixel
    annotate(73, bbox=[4, 5, 9, 20], iscrowd=1)
    annotate(74, bbox=[4, 5, 11, 20])
    counted = [f for f in found()["findings"] if f["field"] == "bbox"]
    assert [(f["severity"], f["value"]) for f in counted] == [("counted", "1")]


def test_row_14_images_without_annotations(content, found):
    for number in (12, 13):
        content["images"].append(
            {"id": number, "file_name": f"{number}.png", "width": 64, "height": 64 + number}
        )
    result = found()
    assert result["trainable"]
    assert result["splits"]["train"]["images_without_instances"] == 2
    assert [f["value"] for f in result["findings"] if "negatives" in f["message"]] == ["2"]


def test_row_20_duplicate_image_id(content, found):
    content["images"].append({**content["images"][0], "file_name": "b.png"})
    assert [number for number, _ in listed(found(), "error")] == [11]


def test_row_31_truncated_json(found):
    def cut(folder):
        path = folder / "annotations" / "instances_train.json"
        path.write_text(path.read_text()[:100])

    (error,) = found(cut)["findings"]
    assert "offset" in error["message"]
    assert error["severity"] == "error"


@pytest.mark.parametrize("skip_bad", [False, True])
def test_rows_21_to_24_and_26_and_30_images(content, found, tmp_path, skip_bad):
    for number, name in enumerate(["m.png", "z.png", "h.jpg", "t.jpg", "s.png", "l.png"]):
        content["images"].append({"id": number, "file_name": name, "width": 64, "height": 48})

    def spoil(folder):
        images = folder / "images"
        (images / "m.png").unlink()
        (images / "z.png").write_bytes(b"")
        (images / "h.jpg").write_bytes((images / "h.jpg").read_bytes()[:-40])
        (images / "t.jpg").write_text("This is no image.\n" * 100)
        Image.new("RGB", (48, 64)).save(images / "s.png")
        (images / "l.png").rename(tmp_path / "l.png")
        (images / "l.png").symlink_to(tmp_path / "l.png")

    result = found(spoil, skip_bad=skip_bad)
    unreadable = {(number, "file_name") for number in range(4)}
    always = {(4, "height x width"), (5, "file_name")}
    assert set(listed(result, "error")) == always | (set() if skip_bad else unreadable)
    assert set(listed(result, "skipped")) == (unreadable if skip_bad else set())
    (turned,) = [f for f in result["findings"] if f["id"] == 4]
    assert (turned["expected"], turned["value"]) == ("48 x 64", "64 x 48")
    assert "EXIF" in turned["message"]
    assert result["splits"]["train"]["image_files"]["accepted"] == 1


def test_row_21_no_image_is_left(found):
    result = found(lambda folder: (folder / "images" / "a.png").unlink(), skip_bad=True)
    assert not result["trainable"]
    assert [f["said"] for f in result["findings"] if f["severity"] == "error"] == [
        "no image can be read"
    ]


def test_row_19_annotations_without_any_image(content, found):
    content["images"].clear()
    result = found()
    assert not result["trainable"]
    assert listed(result, "skipped") == [(71, "image_id")]


def test_row_41_extreme_sizes(content, found):
    for number, size in enumerate([(1, 1), (31, 33), (400, 7), (64, 64)]):
        width, height = size
        content["images"].append(
            {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        )
    result = found()
    assert result["trainable"]
    assert {number for number, field in listed(result, "counted") if field == "width x height"} == {
        0,
        1,
        2,
        11,
    }


def test_exit_status_and_json(content, write, cli, annotate):
    annotate(104, bbox=[4, 5, 10])
    folder = write()
    status, out, _ = cli("data", "check", folder, "--split", "train", "--fast", "--json")
    assert status == 2
    assert json.loads(out)["counts"]["error"] == 1
    status, out, _ = cli("data", "check", folder, "--split", "train", "--fast")
    assert status == 2
    assert "annotation 104: bbox: expected 4 finite numbers" in out


def test_rows_21_to_24_training_leaves_out_with_skip_bad(handwriting, make_recipe, tmp_path):
    from botvision.recipes.running import build_task

    folder = tmp_path / "data"
    shutil.copytree(handwriting, folder)
    (folder / "images" / "val_000001.jpg").unlink()
    with pytest.raises(BotvisionError, match=r"val_000001\.jpg: no such image"):
        build_task(make_recipe(data=folder))
    (folder / "images" / "train_000002.jpg").write_text("no image")
    task = build_task(make_recipe("data.skip_bad=true", data=folder))
    notes = [note for note in task.notes if "left out" in note]
    assert [note[: note.index(":")] for note in notes] == [
        "1 of 8 images of instances_train.json left out",
        "1 of 6 images of instances_val.json left out",
    ]
    assert len(task.train_data()) == 7
    task.evaluate(task.model, lambda done, total: None)
    found = {result["image_id"] for result in task.results()}
    names = json.loads((folder / "annotations" / "instances_val.json").read_text())["images"]
    (gone,) = [each["id"] for each in names if each["file_name"] == "val_000001.jpg"]
    assert found
    assert gone not in found


def test_rows_21_to_24_truth_that_was_left_out_is_not_missed(content, annotate, write):
    from botvision.tasks.detection.metrics import CocoMetrics

    content["images"].append({"id": 12, "file_name": "b.png", "width": 40, "height": 30})
    annotate(72, image_id=12)
    annotations = read_annotations(write() / "annotations" / "instances_train.json")
    result = {"image_id": 11, "category_id": 5, "bbox": [4, 5, 10, 20], "score": 0.9}
    recalls = []
    for truth in (annotations, annotations.without_images({12})):
        metrics = CocoMetrics(truth, masks=False)
        metrics.process([dict(result)])
        recalls.append(metrics.evaluate()["box_ar100"])
    assert recalls == pytest.approx([0.5, 1.0])
