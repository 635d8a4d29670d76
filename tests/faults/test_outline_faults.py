"""Outlines of COCO files: parts that cannot be drawn, other forms, and boxes of something else."""

import json

import numpy as np
import pytest

from botvision.datasets.check.report import check_folder
from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.polygons import instance_mask

SIZE = 120, 80
BOXES = [[10, 8, 40, 30], [70, 10, 40, 50], [12, 40, 30, 25], [60, 5, 24, 36]]
RECTANGLE = [4, 5, 14, 5, 14, 25, 4, 25]  # of the conftest's box


def rectangle(box):
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.fixture
def boxes(content, annotate):
    """A function that puts instances of these boxes and outlines into one image."""

    def run(boxes, outlines, **changes):
        content["images"][0].update(width=SIZE[0], height=SIZE[1])
        content["annotations"].clear()
        for number, (box, outline) in enumerate(zip(boxes, outlines, strict=True), start=1):
            annotate(number, bbox=box, segmentation=[outline], **changes)

    return run


@pytest.fixture
def messages(write):
    """A function that writes the content and gives the check's messages of a severity."""

    def run(severity):
        report = check_folder(write(), ["train"], num_workers=0, image_size=64)
        return [each.message for each in report.all_findings() if each.severity == severity]

    return run


@pytest.mark.parametrize("bad", [[5, 5, 6, 6], [5, 5], [], [1, 2, 3, 4, 5, 6, 7]], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_good_parts_stay(annotate, read, bad, first):
    parts = [bad, RECTANGLE] if first else [RECTANGLE, bad]
    annotate(segmentation=parts, bbox=[4, 5, 10, 20], category_id=1)
    annotations = read()
    _, found = annotations.instances[11]
    assert found["segmentation"] == [RECTANGLE]
    assert instance_mask(found, 30, 40).sum() == 200
    assert annotations.skipped.total() == 0
    assert list(annotations.tally.noted.values()) == [1]


def test_a_part_left_out_is_listed(annotate, messages):
    annotate(segmentation=[RECTANGLE, [5, 5, 6, 6]], category_id=1)
    (message,) = [each for each in messages("counted") if "annotation 72" in each]
    assert "1 of 2 polygons have fewer than 3 points or odd length" in message


POINTS = [[4, 5], [14, 5], [14, 25], [4, 25]]


@pytest.mark.parametrize(
    "segmentation",
    [
        RECTANGLE,
        POINTS,
        [POINTS],
        [[str(value) for value in RECTANGLE]],
        [str(value) for value in RECTANGLE],
        {"size": [30, 40], "counts": [165, *[20, 10] * 9, 20, 1200 - 165 - 290]},
        {"size": [30.0, "40"], "counts": [165.0, *[20.0, 10.0] * 9, 20.0, 1200 - 165 - 290]},
    ],
    ids=["flat", "points", "parts of points", "text", "flat text", "lengths", "float lengths"],
)
def test_other_ways_of_writing_an_outline(annotate, read, segmentation):
    if isinstance(segmentation, dict):  # from column 4 on: 4 * 30 + 5 = 125
        segmentation["counts"][0], segmentation["counts"][-1] = 125, 1200 - 125 - 290
    annotate(segmentation=segmentation, category_id=1)
    _, found = read().instances[11]
    mask = instance_mask(found, 30, 40)
    assert mask.sum() == 200
    assert mask[5:25, 4:14].all()


@pytest.mark.parametrize("quote", ["'", '"'])
def test_run_lengths_written_as_bytes(annotate, read, quote):
    from pycocotools import mask as oracle

    mask = np.zeros((30, 40), np.uint8)
    mask[5:25, 4:14] = 1
    mask[::7, ::5] = 1
    counts = oracle.encode(np.asfortranarray(mask))["counts"]
    text = f"b{quote}{repr(counts)[2:-1]}{quote}"
    annotate(segmentation={"size": [30, 40], "counts": text}, bbox=[0, 0, 40, 30])
    _, found = read().instances[11]
    assert np.array_equal(instance_mask(found, 30, 40), mask)


FORMS = {
    "scaled by 2": lambda x, y, w, h: ([x, y, w, h], [2 * x, 2 * y, 2 * w, 2 * h]),
    "scaled by 0.5 x 3": lambda x, y, w, h: ([x, y, w, h], [x / 2, 3 * y, w / 2, 3 * h]),
    "bbox looks like [x1, y1, x2, y2]": lambda x, y, w, h: ([x, y, x + w, y + h], [x, y, w, h]),
    "x and y look swapped": lambda x, y, w, h: ([x, y, w, h], [y, x, h, w]),
    "outlines look like fractions": lambda x, y, w, h: (
        [x, y, w, h],
        [x / 120, y / 80, w / 120, h / 80],
    ),
    "bbox looks like [middle x, middle y": lambda x, y, w, h: (
        [x + w / 2, y + h / 2, w, h],
        [x, y, w, h],
    ),
    "moved by 64, 48 pixels": lambda x, y, w, h: ([x, y, w, h], [x + 64, y + 48, w, h]),
}


@pytest.mark.parametrize("form", FORMS)
def test_outlines_that_do_not_fit_are_explained(boxes, messages, form):
    pairs = [FORMS[form](*box) for box in BOXES]
    boxes([box for box, _ in pairs], [rectangle(outline) for _, outline in pairs])
    (message,) = messages("error")
    assert "instances_train.json: annotations: bbox: " in message
    assert "4 outlines do not fit their bbox" in message or "corners" in message
    assert form.removeprefix("bbox looks like ") in message


def test_half_of_the_boxes_as_corners(boxes, refused):
    given = [
        [x, y, x + w, y + h] if number % 2 else [x, y, w, h]
        for number, (x, y, w, h) in enumerate(BOXES * 2)
    ]
    boxes(given, [rectangle(box) for box in BOXES * 2])
    refused("4 of 8 outlines do not fit", "[x1, y1, x2, y2]")


def test_a_few_boxes_that_do_not_fit_are_counted(boxes, messages, read):
    given = [[*BOXES[0][:2], 4, 4], *BOXES[1:]]
    boxes(given, map(rectangle, BOXES))
    (message,) = messages("counted")
    assert "annotation 1: bbox: [10, 8, 4, 4] does not fit the outline" in message
    assert "[10, 8, 40, 30]" in message


def test_a_box_of_rounded_numbers_fits(boxes, read):
    boxes(
        [[10, 8, 1, 1], [30, 8, 2, 1], [50, 8, 2, 2]],
        [
            rectangle([10.6, 8.7, 1.1, 0.9]),
            rectangle([28.9, 7.2, 1.9, 1.7]),
            rectangle([51.4, 9.1, 1.2, 1.1]),
        ],
    )
    assert read().tally.noted == {}


def test_one_outline_outside_the_image(boxes, read):
    boxes(BOXES, [*map(rectangle, BOXES[:3]), rectangle([140, 8, 40, 30])])
    annotations = read()
    assert [each["id"] for each in annotations.instances[11]] == [1, 2, 3]
    assert annotations.skipped == {"outline outside the image": 1}


def test_boxes_of_fractions(content, annotate, refused):
    content["images"][0].update(width=SIZE[0], height=SIZE[1])
    content["annotations"].clear()
    for number, (x, y, width, height) in enumerate(BOXES):
        annotate(number, bbox=[x / 120, y / 80, width / 120, height / 80])
    refused("annotations", "4 of 4 boxes", "fractions")


def test_an_annotation_twice(annotate, read):
    annotate(101)  # the sound one again
    annotate(102, category_id=1)
    annotate(103, bbox=[4, 5, 10, 21])
    annotate(104, segmentation=[RECTANGLE])
    annotate(105, segmentation=[RECTANGLE])
    annotate(106, iscrowd=1)
    annotations = read()
    assert [each["id"] for each in annotations.instances[11]] == [71, 102, 103, 104, 106]
    assert annotations.skipped.total() == 2


def test_annotations_twice_are_listed(content, annotate, messages):
    content["annotations"].clear()
    for number in range(1, 1000):
        annotate(number, bbox=[4, 5, 10 + number / 100, 20])
    for number in range(1, 1000):
        annotate(number + 2000, bbox=[4, 5, 10 + number / 100, 20])
    found = messages("skipped")
    assert len(found) == 999
    assert "annotation 2001: bbox: the same as annotation 1:" in found[0]


@pytest.mark.parametrize(
    ("image", "own"), [(1, "1"), ("1", 1), (1, 1.0), (1.0, 1), (1, "001"), ("a", "a")], ids=repr
)
def test_image_ids_that_are_the_same_number(content, read, image, own):
    content["images"][0]["id"] = image
    content["annotations"][0]["image_id"] = own
    annotations = read()
    assert [each["id"] for each in annotations.images] == [image]
    assert not isinstance(annotations.image(0)["id"], float)
    assert len(annotations.image_instances(0)) == 1


def test_image_ids_that_could_mean_two_images(content, annotate, read):
    content["images"] = [
        {"id": number, "file_name": f"{index}.png", "width": 40, "height": 30}
        for index, number in enumerate(["1", "01", 7])
    ]
    content["annotations"][0]["image_id"] = 1
    annotate(image_id="7")
    annotations = read()
    assert annotations.skipped == {"image_id without an image": 1}
    assert [each["id"] for each in annotations.instances[7]] == [72]


@pytest.mark.parametrize(("given", "kept"), [(5.0, 5), ("5", 5), ("5.0", 5), (90.0, 90)])
def test_class_ids_as_text_or_with_a_point(content, annotate, read, given, kept):
    annotate(category_id=given, bbox=["4", "5.5", "10", "20"], area="200", iscrowd="0")
    content["categories"][0]["id"] = 90.0
    content["categories"][2]["id"] = "5"
    _, found = read().instances[11]
    assert found["category_id"] == kept
    assert found["bbox"] == [4, 5.5, 10, 20]
    assert (found["area"], found["iscrowd"]) == (200, 0)


@pytest.mark.parametrize(
    ("value", "crowd"), [("0", 0), ("false", 0), ("1", 1), (True, 1), (0.0, 0)]
)
def test_crowds_in_other_words(annotate, read, value, crowd):
    annotate(iscrowd=value, category_id=1)
    assert [each["iscrowd"] for each in read().instances[11]] == [0, crowd]


def test_image_sides_as_text(content, tmp_path):
    path = tmp_path / "a.json"
    content["images"][0] |= {"width": "40", "height": "30.0"}
    path.write_text(json.dumps(content))
    assert (read_annotations(path).image_sizes == [40, 30]).all()


@pytest.mark.parametrize("crowds", [True, False])
def test_nothing_to_train_on(content, messages, crowds):
    if crowds:
        content["annotations"][0]["iscrowd"] = 1
    else:
        content["annotations"][0]["bbox"] = [4, 5, 0, 0]
    (message,) = messages("error")
    assert "no instance to train on: 1 of 1 annotations" in message
