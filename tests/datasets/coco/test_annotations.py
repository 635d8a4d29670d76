"""Reading COCO annotations; masks against those of pycocotools."""

import json

import numpy as np
import pytest
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.polygons import instance_mask
from botvision.datasets.coco.store import Category
from botvision.errors import BotvisionError

# pycocotools' own, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 48, 64
IMAGE = {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}


@pytest.fixture
def read(write_coco):
    """A function that writes annotations of one image and reads them back."""

    def run(annotations, **options):
        folder = write_coco([IMAGE], annotations, **options)
        return read_annotations(folder / "annotations" / "instances_train.json")

    return run


def box_annotation(**changes):
    return {"image_id": 1, "category_id": 1, "bbox": [4, 5, 10, 20], **changes}


def uncompressed(mask):
    """Run lengths down the columns, starting with zeros: the COCO definition."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def random_mask(rng):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(rng.integers(1, 5)):
        top, left = rng.integers(0, (HEIGHT, WIDTH))
        mask[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] ^= 1
    return mask


@pytest.mark.parametrize("seed", range(4))
def test_polygons_equal_pycocotools(read, random_polygons, seed, capsys):
    annotations = read(random_polygons(np.random.default_rng(seed), 25))
    assert not annotations.skipped
    coco = COCO(annotations.path)
    drawn = 0
    for annotation in annotations.instances[1]:
        mask = instance_mask(annotation, HEIGHT, WIDTH)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, coco.annToMask(coco.anns[annotation["id"]]))
        drawn += mask.any()
    assert drawn > 15


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("crowd", [0, 1])
def test_run_lengths_equal_pycocotools(read, seed, compressed, crowd, capsys):
    masks = [random_mask(np.random.default_rng([seed, number])) for number in range(10)]
    masks = [mask for mask in masks if mask.any()]
    records = []
    for mask in masks:
        rle = uncompressed(mask)
        if compressed:
            rle = oracle.encode(np.asfortranarray(mask))
            rle["counts"] = rle["counts"].decode()
        box = oracle.toBbox(oracle.encode(np.asfortranarray(mask))).tolist()
        records.append(box_annotation(bbox=box, segmentation=rle, iscrowd=crowd))
    annotations = read(records)
    coco = COCO(annotations.path)
    for mask, annotation in zip(masks, annotations.instances[1], strict=True):
        ours = instance_mask(annotation, HEIGHT, WIDTH)
        assert np.array_equal(ours, mask)
        assert np.array_equal(ours, coco.annToMask(coco.anns[annotation["id"]]))


def test_a_polygon_by_hand():
    # A rectangle with corners between pixels covers whole pixels.
    annotation = box_annotation(id=1, segmentation=[[2, 1, 6, 1, 6, 4, 2, 4]])
    expected = np.zeros((6, 8), np.uint8)
    expected[1:4, 2:6] = 1
    assert np.array_equal(instance_mask(annotation, 6, 8), expected)


@pytest.mark.parametrize("segmentation", [None, [], {}], ids=str)
def test_without_segmentation_the_box_is_filled(read, segmentation):
    (annotation,) = read([box_annotation(segmentation=segmentation)]).instances[1]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:25, 4:14] = 1
    assert np.array_equal(instance_mask(annotation, HEIGHT, WIDTH), expected)
    del annotation["segmentation"]
    assert np.array_equal(instance_mask(annotation, HEIGHT, WIDTH), expected)


def test_categories_are_sorted_by_id(read):
    # The file names them in the order 90, 1, 5.
    categories = read([]).categories
    assert categories == [Category(1, "cat"), Category(5, "dog"), Category(90, "cup")]


def test_records_hold_what_is_used(read):
    # What else a record of the file says is not kept.
    annotations = read([box_annotation(iscrowd=1, area=3.5, score=1)])
    (annotation,) = annotations.instances[1]
    assert annotation == box_annotation(id=1, iscrowd=1, area=3.5, segmentation=[])
    assert list(annotations.images) == [IMAGE]


def test_each_image_has_its_own_instances(write_coco):
    images = [{**IMAGE, "id": i, "file_name": f"{i}.png"} for i in (7, 3, 5)]
    records = [box_annotation(image_id=i, bbox=[n, 1, 2, 3]) for n, i in enumerate((3, 7, 3))]
    folder = write_coco(images, records)
    result = read_annotations(folder / "annotations" / "instances_train.json")
    assert [image["id"] for image in result.images] == [7, 3, 5]
    found = {i: [a["bbox"][0] for a in own] for i, own in result.instances.items()}
    assert found == {7: [1], 3: [0, 2], 5: []}


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
@pytest.mark.parametrize("value", [None, {}, "text", 3], ids=str)
def test_a_part_that_is_no_list(tmp_path, key, value):
    content = {"images": [], "categories": [], "annotations": [], key: value}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=f"a.json: {key}: expected a list, got"):
        read_annotations(path)


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
def test_a_part_that_is_missing(tmp_path, key):
    content = {"images": [], "categories": [], "annotations": []}
    del content[key]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=f"a.json: {key}: expected a list"):
        read_annotations(path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"'])
def test_json_that_is_no_object(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(BotvisionError, match=r"a\.json: expected a JSON object"):
        read_annotations(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 200_000], ids=["bytes", "nested"])
def test_what_cannot_be_read(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BotvisionError, match=r"a\.json: "):
        read_annotations(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(BotvisionError, match=r"none\.json: cannot be read"):
        read_annotations(tmp_path / "none.json")
