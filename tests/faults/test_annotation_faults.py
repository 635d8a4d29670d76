"""Rows of the fault corpus about annotation files, and records of the wrong type."""

import json

import numpy as np
import pytest

from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.polygons import instance_mask
from botvision.errors import BotvisionError

POLYGON = [4, 5, 14, 5, 14, 25]


@pytest.mark.parametrize("side", [0, 0.0])
def test_row_01_box_of_width_0(annotate, skipped, side):
    annotate(bbox=[4, 5, side, 20])
    skipped()


@pytest.mark.parametrize("box", [[4, 25, 10, -20], [14, 5, -10, 20]], ids=str)
def test_row_02_negative_height(annotate, skipped, box):
    annotate(bbox=box)
    skipped()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", range(4))
def test_row_03_nan_or_infinity_in_a_box(annotate, refused, place, value):
    box = [4.0, 5.0, 10.0, 20.0]
    box[place] = value
    annotate(bbox=box)
    refused("annotation 72", "bbox", box)


@pytest.mark.parametrize(
    "box", [[4, 5, 10], [], [4, 5, 10, 20, 30], None, 7, "4 5 10 20", ["4x", 5, 10, 20]], ids=str
)
def test_row_04_box_of_3_numbers(annotate, refused, box):
    annotate(bbox=box)
    refused("annotation 72", "bbox", "4 finite numbers", repr(box))


def test_a_box_beyond_floating_point(annotate, refused):
    annotate(bbox=[4, 5, 10**400, 20])
    refused("annotation 72", "bbox")


@pytest.mark.parametrize(
    "box", [[40, 5, 10, 10], [4, 30, 10, 10], [-10, 5, 10, 10], [4, -11, 10, 10]], ids=str
)
def test_row_05_box_outside_the_image(annotate, skipped, box):
    annotate(bbox=box)
    skipped()


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-5, -6, 10, 20], [0, 0, 5, 14]),
        ([35, 25, 10, 20], [35, 25, 5, 5]),
        ([-1, -1, 100, 100], [0, 0, 40, 30]),
        ([0, 0, 40, 30], [0, 0, 40, 30]),
    ],
    ids=str,
)
def test_row_06_box_half_outside_is_clipped(annotate, read, box, clipped):
    annotate(bbox=box)
    annotations = read()
    assert [each["bbox"] for each in annotations.instances[11]] == [[4, 5, 10, 20], clipped]
    assert annotations.clipped == (box != clipped)


def boxes_near_the_middle(count):
    """x1, y1, x2, y2 of boxes whose middles are all over an image of 40 x 30 pixels."""
    rng = np.random.default_rng(0)
    near = rng.uniform(0, (30, 20), (count, 2))
    return np.concatenate([near, near + rng.uniform(3, 10, (count, 2))], axis=1).round(2)


@pytest.mark.parametrize("count", [10, 600])
def test_row_07_corners_written_as_sides(content, annotate, refused, count):
    content["annotations"].clear()
    for number, box in enumerate(boxes_near_the_middle(count).tolist()):
        annotate(number, bbox=box)
    refused("annotations", "bbox", "[x, y, width, height]", "[x1, y1, x2, y2]")


def test_row_07_honest_boxes_are_taken(content, annotate, read):
    content["annotations"].clear()
    boxes = boxes_near_the_middle(600)
    boxes[:, 2:] -= boxes[:, :2]
    boxes[:300, 2:] += 30  # half of them reach out of the image
    for number, box in enumerate(boxes.tolist()):
        annotate(number, bbox=box)
    annotations = read()
    assert len(annotations.instances[11]) == 600
    assert annotations.clipped >= 300


def test_row_10_instances_that_a_crop_empties(content, annotate, write):
    from botvision.datasets.coco.augmentation import training_transform
    from botvision.datasets.coco.dataset import CocoInstances

    content["images"][0].update(width=400, height=400)
    content["annotations"].clear()
    annotate(1, bbox=[0, 0, 20, 20])
    annotate(2, bbox=[380, 380, 20, 20])
    data = CocoInstances(write(), "train", transform=training_transform(64, scale=(3, 3), flip=0))
    counts = [len(data[epoch, 0][1]["labels"]) for epoch in range(20)]
    assert set(counts) <= {0, 1}  # no crop of a third holds opposite corners
    for epoch in range(20):
        _, target = data[epoch, 0]
        assert len(target["boxes"]) == len(target["masks"]) == counts[epoch]
        assert all(mask.any() for mask in target["masks"])


@pytest.mark.parametrize("polygons", [[[4, 5, 14, 5]], [[4, 5]], [[]], [[1, 2], [4, 5, 14, 5]]])
def test_row_08_polygon_of_2_points(annotate, skipped, polygons):
    annotate(segmentation=polygons)
    skipped()


@pytest.mark.parametrize("polygon", [POLYGON[:5], [*POLYGON, 9]], ids=str)
def test_row_09_polygon_of_odd_length(annotate, skipped, polygon):
    annotate(segmentation=[polygon])
    skipped()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinity_in_a_polygon(annotate, refused, value):
    # Drawing such a polygon asks for all the memory there is.
    annotate(segmentation=[[*POLYGON[:5], value]])
    refused("annotation 72", "segmentation", value)


@pytest.mark.parametrize(
    "segmentation",
    [
        [["4", "5", "14", "5", "14", "y"]],
        [None],
        "text",
        7,
        {"size": [30, 40]},
        {"counts": [1200]},
        {"size": 30, "counts": [1200]},
        {"size": [30, 40], "counts": None},
        {"size": [30, 40], "counts": [600.5, 599.5]},
        {"size": [30, 40], "counts": ["1200 "]},
        {"size": [30, 40], "counts": [-1, 1201]},
        {"size": [30.5, 40], "counts": [1200]},
        {"size": [10**400, 40], "counts": [1200]},
    ],
    ids=str,
)
def test_a_segmentation_of_another_form(annotate, refused, segmentation):
    annotate(segmentation=segmentation)
    refused("annotation 72", "segmentation")


def compressed(height, width):
    from pycocotools import mask

    rle = mask.encode(np.asfortranarray(np.eye(height, width, dtype=np.uint8)))
    return {**rle, "counts": rle["counts"].decode()}


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [40, 30], "counts": [1200]},
        {"size": [31, 40], "counts": [1240]},
        compressed(40, 30),
    ],
    ids=["transposed", "taller", "compressed"],
)
def test_row_11_run_lengths_of_another_size(annotate, refused, segmentation):
    annotate(segmentation=segmentation)
    refused("annotation 72", "segmentation", "30 x 40", segmentation["size"])


@pytest.mark.parametrize(
    "counts",
    [
        [1199],
        [1, 1200],
        [],
        compressed(30, 39)["counts"],
        compressed(31, 40)["counts"],
        "",
        "b",
        "é",
    ],
    ids=["short", "long", "none", "short string", "long string", "empty", "early end", "no ASCII"],
)
@pytest.mark.parametrize("crowd", [0, 1])
def test_row_12_run_lengths_of_a_wrong_sum(annotate, refused, counts, crowd):
    annotate(segmentation={"size": [30, 40], "counts": counts}, iscrowd=crowd)
    refused("annotation 72", "segmentation", "30 x 40")


def test_row_13_uncompressed_crowd(annotate, write):
    from botvision.datasets.coco.dataset import CocoInstances

    annotate(segmentation={"size": [30, 40], "counts": [100, 50, 1050]}, iscrowd=1)
    data = CocoInstances(write(), "train")
    # Kept for the evaluation, which ignores what lies in it; no target of the loss.
    assert [each["id"] for each in data.annotations.instances[11]] == [71, 72]
    assert instance_mask(data.annotations.instances[11][1], 30, 40).sum() == 50
    _, target = data[0, 0]
    assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"]) == 1


def test_row_14_images_without_annotations(content, write):
    from botvision.datasets.coco.dataset import CocoInstances

    content["images"].append({"id": 12, "file_name": "b.png", "width": 20, "height": 10})
    data = CocoInstances(write(), "train")
    assert len(data) == 2
    _, target = data[0, 1]
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 10, 20)


def test_row_16_category_ids_with_gaps(annotate, write):
    from botvision.datasets.coco.dataset import CocoInstances

    annotate(72, category_id=90)
    annotate(73, category_id=1)
    data = CocoInstances(write(), "train")
    labels = data[0, 0][1]["labels"].tolist()
    assert labels == [2, 3, 1]
    assert [data.categories[label - 1].id for label in labels] == [5, 90, 1]


@pytest.mark.parametrize("value", [2, 0, -1, None, "5a", 5.5, [5]], ids=repr)
def test_row_17_unknown_category(annotate, refused, value):
    annotate(category_id=value)
    refused("annotation 72", "category_id", repr(value))


def test_row_18_duplicate_annotation_id(annotate, refused):
    annotate(71, bbox=[1, 1, 2, 2])
    refused("annotations", "id 71")


@pytest.mark.parametrize("value", [12, -1, 110])
def test_row_19_annotation_of_an_unknown_image(annotate, skipped, value):
    annotate(image_id=value)
    skipped()


def test_row_20_duplicate_image_id(content, refused):
    content["images"].append({"id": 11, "file_name": "b.png", "width": 20, "height": 10})
    refused("images", "id 11")


def test_duplicate_category_id(content, refused):
    content["categories"].append({"id": 5, "name": "again"})
    refused("categories", "id 5")


@pytest.mark.parametrize("offset", [1, 100, -1])
def test_row_31_truncated_json(content, tmp_path, offset):
    path = tmp_path / "a.json"
    text = json.dumps(content)[:offset]
    path.write_text(text)
    with pytest.raises(BotvisionError, match=r"a\.json: not JSON at offset (\d+)") as caught:
        read_annotations(path)
    found = int(str(caught.value).split("offset ")[1].split(":")[0])
    assert len(text) - 40 < found <= len(text)  # at the end, or where the open text begins


@pytest.mark.parametrize(
    ("part", "field"),
    [
        *[("images", field) for field in ("id", "file_name", "width", "height")],
        *[("categories", field) for field in ("id", "name")],
        *[("annotations", field) for field in ("id", "image_id", "category_id", "bbox")],
    ],
)
def test_a_missing_field(content, tmp_path, part, field):
    del content[part][0][field]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=rf"a\.json: {part}\[0\]: {field} missing"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        *[("images", "id", value) for value in ([11], None, {})],
        *[
            ("images", side, value)
            for side in ("width", "height")
            for value in ("40px", None, 0, -3)
        ],
        *[("images", "file_name", value) for value in (5, None, ["a"])],
        *[("categories", "id", value) for value in ([1], None, "q")],
        *[("annotations", "id", value) for value in ([71], {})],
        *[("annotations", "image_id", value) for value in ([11], {})],
    ],
    ids=str,
)
def test_a_field_of_another_type(content, tmp_path, part, field, value):
    content[part][0][field] = value
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=rf"a\.json: {part}.*{field}: expected"):
        read_annotations(path)


@pytest.mark.parametrize("record", [None, 3, "text", []], ids=repr)
@pytest.mark.parametrize("part", ["images", "categories", "annotations"])
def test_a_record_that_is_no_object(content, tmp_path, part, record):
    content[part].append(record)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=rf"a\.json: {part}\[\d\]: .*missing"):
        read_annotations(path)
