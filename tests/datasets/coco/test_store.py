"""Records made of arrays against the plain records of the file."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botvision.datasets.coco import file
from botvision.datasets.coco import records as records_module
from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.polygons import instance_mask
from botvision.datasets.coco.store import CocoAnnotations, InstanceRecords
from botvision.errors import BotvisionError

CATEGORIES = [{"id": 90, "name": "cup"}, {"id": 1, "name": "cät"}, {"id": 5, "name": "dog"}]
NUMBERS = st.one_of(
    st.integers(-30, 90),
    st.floats(-30, 90).map(lambda value: round(value, 2)),
    st.floats(-30, 90),
    st.sampled_from([700.25, 70_000.5, 3e7, 1e300, 123.456789, 0.1 + 0.2]),
)
IDS = st.one_of(st.integers(-5, 10**6), st.integers(), st.text(max_size=5))


@st.composite
def annotation(draw, images):
    image = draw(st.sampled_from([*images, {"id": "of no image", "height": 5, "width": 5}]))
    record = {
        "image_id": image["id"],
        "category_id": draw(st.sampled_from([1, 5, 90])),
        "bbox": draw(st.lists(NUMBERS, min_size=4, max_size=4)),
    }
    polygons = st.lists(st.lists(NUMBERS, max_size=14), max_size=3)
    pixels = image["height"] * image["width"]
    counts = draw(st.lists(st.integers(0, pixels), max_size=4).map(sorted))
    counts = np.diff([0, *counts, pixels]).tolist()
    lengths = st.just({"size": [image["height"], image["width"]], "counts": counts})
    optional = {
        "segmentation": st.none() | polygons | lengths,
        "iscrowd": st.sampled_from([0, 1, True, None]),
        "area": st.none() | NUMBERS,
        "extra": st.none() | st.text(max_size=3),
    }
    names = draw(st.sets(st.sampled_from(sorted(optional))))
    return {**record, **{name: draw(optional[name]) for name in sorted(names)}}


@st.composite
def contents(draw, ids=IDS):
    images = [
        {
            "id": number,
            "file_name": draw(st.text(max_size=8)),
            "height": draw(st.integers(1, 50)),
            "width": draw(st.integers(1, 50)),
        }
        for number in draw(st.lists(ids, unique=True, max_size=4))
    ]
    records = draw(st.lists(annotation(images), max_size=8))
    numbers = draw(st.lists(ids, unique=True, min_size=len(records), max_size=len(records)))
    records = [{"id": i, **each} for i, each in zip(numbers, records, strict=True)]
    return {"images": images, "categories": CATEGORIES, "annotations": records}


def plain_records(content):
    """Usable records by image, and how many are not: what COCO's format and we say of them."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    usable = {image: [] for image in sizes}
    for record in content["annotations"]:
        if record["image_id"] not in sizes:
            continue
        x, y, width, height = record["bbox"]
        right, bottom = (
            min(near + side, most)
            for near, side, most in zip(
                (x, y), (width, height), sizes[record["image_id"]], strict=True
            )
        )
        left, top = max(x, 0), max(y, 0)
        shape = record.get("segmentation") or []
        if isinstance(shape, list):
            if len(shape) == 3 and all(len(each) == 2 for each in shape):
                shape = [[number for each in shape for number in each]]  # the points of one polygon
            shape = [each for each in shape if len(each) >= 6 and len(each) % 2 == 0]
        drawn = shape or not record.get("segmentation")
        if shape and not record.get("iscrowd"):
            drawn = touches(shape, *sizes[record["image_id"]])
        if min(width, height, right - left, bottom - top) > 0 and drawn:
            kept = {
                "id": record["id"],
                "image_id": record["image_id"],
                "category_id": record["category_id"],
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": shape,
                "iscrowd": int(record.get("iscrowd") or 0),
            }
            if record.get("area") is not None:
                kept["area"] = record["area"]
            if not any(same(kept, each) for each in usable[record["image_id"]]):
                usable[record["image_id"]].append(kept)
    return usable


def touches(shape, width, height):
    if isinstance(shape, dict):
        return any(shape["counts"][1::2])
    x, y = ([v for each in shape for v in each[axis::2]] for axis in (0, 1))
    return min(x) < width and min(y) < height and max(x) > 0 and max(y) > 0


def same(one, other):
    return all(one[key] == other[key] for key in ("category_id", "bbox", "iscrowd", "segmentation"))


QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(content=contents())
def test_records_equal_the_plain_ones(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    # Boxes and outlines at random do not fit each other, which is an error.
    found = CocoAnnotations(path, file.read_arrays(path, lambda finding: None))
    expected = plain_records(content)
    assert dict(found.instances) == expected
    assert list(found.images) == content["images"]
    assert [c.id for c in found.categories] == [1, 5, 90]
    kept = sum(map(len, expected.values()))
    assert found.skipped.total() + kept == len(content["annotations"])


@pytest.fixture
def read(tmp_path):
    """A function that reads annotations of one image, or of the images given."""

    def run(*segmentations, images=None, **changes):
        images = images or [{"id": 1, "file_name": "a.png", "height": 3000, "width": 4000}]
        records = [
            {
                "id": number,
                "image_id": images[0]["id"],
                "category_id": 5,
                "bbox": [1, 1, 2, 2],
                "segmentation": segmentation,
                **changes,
            }
            for number, segmentation in enumerate(segmentations)
        ]
        content = {"images": images, "categories": CATEGORIES, "annotations": records}
        path = tmp_path / "a.json"
        path.write_text(json.dumps(content))
        return CocoAnnotations(path, file.read_arrays(path, lambda finding: None))

    return run


@pytest.mark.parametrize(
    "polygon",
    [
        [0, 0.01, 655.35, 12.3, 4, 5.5],
        [-0.01, 0, 1, 0, 1, 1],
        [655.36, 0, 21474836.47, 0, 1, 1],
        [21474836.48, 0, 1, 0, 1, 1],
        [0.001, 0, 1, 0, 1, 1],
        [0.1 + 0.2, 0, 1, 0, 1, 1],
        [1e308, 0, 1, 0, 1, 1],
    ],
    ids=str,
)
def test_coordinates_are_exact(read, polygon):
    assert read([polygon]).instances[1][0]["segmentation"] == [polygon]


def test_all_hundredths_are_exact(read):
    # All that uint16 can say, and the largest there are.
    numbers = [
        float(f"{i // 100}.{i % 100:02d}") for i in (*range(2**16), *range(2**31 - 999, 2**31 - 1))
    ]
    (annotation,) = read([numbers]).instances[1]
    assert annotation["segmentation"] == [numbers]


def test_chunks_of_different_numbers(read):
    # More records than are parsed at a time; those with many decimals come last.
    polygons = [[i / 100, 0.25, 3, 4, 5, 6] for i in range(4100)]
    polygons += [[i / 3 + 0.001, 0.25, 3, 4, 5, 6] for i in range(4100)]
    found = read(*([polygon] for polygon in polygons)).instances[1]
    assert [each["segmentation"] for each in found] == [[polygon] for polygon in polygons]
    assert [each["id"] for each in found] == list(range(8200))


def test_a_duplicate_id_far_apart(tmp_path):
    record = {"image_id": 1, "category_id": 5, "bbox": [1, 1, 2, 2]}
    records = [{"id": i % 9000, **record} for i in range(9001)]
    image = {"id": 1, "file_name": "a.png", "height": 30, "width": 40}
    content = {"images": [image], "categories": CATEGORIES, "annotations": records}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match="id 0 occurs twice"):
        read_annotations(tmp_path / "a.json")


@pytest.mark.parametrize(
    "odd",
    [{"area": float("nan")}, {"score": float("-inf")}, {"iscrowd": None}, {"id": "a"}],
    ids=str,
)
def test_one_odd_record_leaves_the_others_to_the_fast_reader(tmp_path, monkeypatch, odd):
    record = {"image_id": 1, "category_id": 5, "area": 3.0}
    records = [{"id": i, "bbox": [1, 1, 2 + i / 100, 2], **record} for i in range(2000)]
    records[1500] |= odd
    image = {"id": 1, "file_name": "a.png", "height": 30, "width": 40}
    content = {"images": [image], "categories": CATEGORIES, "annotations": records}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    loaded = []
    load = records_module.loaded
    monkeypatch.setattr(records_module, "loaded", lambda raw: loaded.append(raw) or load(raw))
    monkeypatch.setattr(file, "read_json", None)
    found = read_annotations(path).instances[1]
    assert [each["id"] for each in found] == [each["id"] for each in records]
    assert [each.get("area") for each in found].count(3.0) == 2000 - ("area" in odd)
    assert len(loaded) <= 1


def test_masks_equal_those_of_plain_records(read, random_polygons):
    records = random_polygons(np.random.default_rng(3), 30)
    annotations = read(*(record["segmentation"] for record in records))
    drawn = 0
    for plain, kept in zip(records, annotations.instances[1], strict=True):
        mask = instance_mask(kept, 48, 64)
        assert np.array_equal(mask, instance_mask(plain, 48, 64))
        drawn += mask.any()
    assert drawn > 20


@pytest.mark.parametrize(
    "ids",
    [
        [3, -1, 2],
        [2**62, -(2**63), 2**63 - 1],
        [2**63, 7, 10**30],
        ["b", "a", "é\ud800"],
        [1, "1", 0],
    ],
    ids=str,
)
def test_images_of_any_ids(read, ids):
    images = [{"id": i, "file_name": f"{n}", "height": 8, "width": 8} for n, i in enumerate(ids)]
    annotations = read([], images=images)
    assert [image["id"] for image in annotations.images] == ids
    assert list(annotations.instances) == ids
    assert [len(annotations.instances[i]) for i in ids] == [1, 0, 0]
    assert annotations.instances[ids[0]][0]["image_id"] == ids[0]
    for absent in (17, "absent", 10**40, None, 2.5, [3]):
        with pytest.raises((KeyError, TypeError)):
            annotations.instances[absent]


@pytest.mark.parametrize("name", ["päth/图.jpg", "", "half \ud800 a pair", 'a"\\b\n'])
def test_file_names_of_any_text(read, name):
    images = [{"id": 1, "file_name": name, "height": 8, "width": 8}]
    assert read(images=images).images[0]["file_name"] == name


def test_images_as_a_sequence(read):
    images = [{"id": i, "file_name": f"{i}", "height": 8, "width": 4} for i in range(5)]
    found = read(images=images).images
    assert found[-1] == images[-1]
    assert found[1:4] == images[1:4]
    assert found[::-2] == images[::-2]
    with pytest.raises(IndexError):
        found[5]


def test_an_image_wider_than_any(read, tmp_path):
    # JSON's 1e400 is infinite.
    path = read().path
    path.write_text(path.read_text().replace("4000", "1e400"))
    with pytest.raises(
        BotvisionError, match="with id 1: width: expected a number above 0, got inf"
    ):
        read_annotations(path)


def test_a_record_can_be_changed_without_harm(read):
    annotations = read([[1, 1, 9, 1, 9, 9]])
    annotations.instances[1][0]["bbox"][0] = 1000
    annotations.instances[1].clear()
    assert annotations.instances[1][0]["bbox"] == [1, 1, 2, 2]
    for array in annotations.arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


def test_a_copy_holds_the_same(read):
    annotations = read([[1, 1, 9, 1, 9, 9.125]])
    copy = pickle.loads(pickle.dumps(annotations))
    assert isinstance(copy.instances, InstanceRecords)
    assert dict(copy.instances) == dict(annotations.instances)
    assert list(copy.images) == list(annotations.images)
