"""COCO metrics against pycocotools, the reference everybody's figures come from."""

import contextlib
import copy
import io
import json
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as oracle_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.store import Category
from botvision.supervision_import import import_supervision
from botvision.tasks.detection.metrics import CocoMetrics, coco_results, from_coco_results

# pycocotools' own decoder warns about numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
sv = import_supervision()
NAMES = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
NAMES += ["ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]
CATEGORIES = [{"id": 1, "name": "one"}, {"id": 5, "name": "five"}, {"id": 90, "name": "ninety"}]
SIDE = 240  # room for COCO's small, medium and large


def ellipse(rng):
    """A random mask, uint8 [SIDE, SIDE]."""
    y, x = np.mgrid[:SIDE, :SIDE]
    center = rng.uniform(20, SIDE - 20, 2)
    radii = np.exp(rng.uniform(np.log(9), np.log(100))) * rng.uniform(0.7, 1.4, 2)
    mask = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 < 1
    return mask.astype(np.uint8)


def encoded(mask):
    rle = oracle_mask.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_truth(seed, images=24, crowds=True, first_id=1):
    """A COCO file: crowds as uncompressed run lengths, some images without any truth."""
    rng = np.random.default_rng(seed)
    content = {
        "images": [
            {"id": 7 * i + 3, "file_name": f"{i}.png", "width": SIDE, "height": SIDE}
            for i in range(images)
        ],
        "categories": CATEGORIES,
        "annotations": [],
    }
    for number, image in enumerate(content["images"]):
        for _ in range(0 if number % 4 == 3 else int(rng.integers(1, 7))):
            mask = ellipse(rng)
            crowd = crowds and rng.random() < 0.2
            segmentation = encoded(mask)
            if crowd:
                runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=2, append=2)))
                counts = ([] if mask[0, 0] == 0 else [0]) + runs.tolist()
                segmentation = {"size": [SIDE, SIDE], "counts": counts}
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + first_id,
                    "image_id": image["id"],
                    "category_id": int(rng.choice([1, 5])),  # of 90 there is no truth
                    "bbox": oracle_mask.toBbox(encoded(mask)).tolist(),
                    "area": float(mask.sum()),
                    "iscrowd": int(crowd),
                    "segmentation": segmentation,
                }
            )
    return content


def random_results(truth, seed, per_image=15):
    """Shifted truth, some of it twice and of another class, and noise; equal scores occur."""
    rng = np.random.default_rng(1000 + seed)
    results = []
    for image in truth["images"]:
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        masks = [
            np.roll(oracle_mask.decode(rle), rng.integers(-4, 5, 2), (0, 1))
            for a in own
            for rle in [frozen(a["segmentation"])] * int(rng.integers(0, 3))
        ]
        labels = [a["category_id"] for a in own]
        masks += [ellipse(rng) for _ in range(int(rng.integers(0, per_image)))]
        for mask in masks:
            segmentation = encoded(mask)
            category = int(rng.choice([*labels, 1, 5, 90]))
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": (oracle_mask.toBbox(segmentation) + rng.uniform(0, 3, 4)).tolist(),
                    "score": round(float(rng.random()), 2),
                    "segmentation": segmentation,
                }
            )
    return results


def as_perfect_results(annotations):
    return [
        {
            **{key: each[key] for key in ("image_id", "category_id", "bbox", "segmentation")},
            "score": 1.0,
        }
        for each in annotations
    ]


def frozen(segmentation):
    if isinstance(segmentation["counts"], list):
        return oracle_mask.frPyObjects(segmentation, SIDE, SIDE)
    return segmentation


def oracle(truth, results, kind):
    """pycocotools' evaluation, computed as COCO's server does."""
    results = copy.deepcopy(results)
    if kind == "segm":
        for result in results:
            del result["bbox"]  # else a mask would be as small or large as its box
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {"info": {}, **copy.deepcopy(truth)}
        reference.createIndex()
        if results:
            detections = reference.loadRes(results)
        else:  # pycocotools cannot load none
            detections = COCO()
            detections.dataset = {**reference.dataset, "annotations": []}
            detections.createIndex()
        evaluation = COCOeval(reference, detections, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def measured(truth, results, tmp_path, masks=True):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    metrics = CocoMetrics(read_annotations(path), masks=masks)
    for image in truth["images"]:
        metrics.process([r for r in results if r["image_id"] == image["id"]])
    return metrics.evaluate()


def assert_equal_to_pycocotools(truth, results, tmp_path):
    ours = measured(truth, results, tmp_path)
    for prefix, kind in (("box", "bbox"), ("mask", "segm")):
        evaluation = oracle(truth, results, kind)
        expected = dict(zip(NAMES, evaluation.stats, strict=True))
        got = {name: ours[f"{prefix}_{name}"] for name in NAMES}
        assert got == pytest.approx(expected, abs=1e-12, rel=0)
        for place, category in enumerate(truth["categories"]):
            for area, size in enumerate(("", "_small", "_medium", "_large")):
                precision = evaluation.eval["precision"][:, :, place, area, -1]
                per_class = precision[precision > -1].mean() if (precision > -1).any() else -1
                assert ours[f"{prefix}_ap{size}_per_class"][category["name"]] == pytest.approx(
                    per_class, abs=1e-12, rel=0
                )
    return ours


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6])
def test_random_detections_equal_pycocotools(seed, tmp_path):
    truth = random_truth(seed)
    ours = assert_equal_to_pycocotools(truth, random_results(truth, seed), tmp_path)
    # Nothing is compared that is trivially 0 or missing.
    figures = {
        f"{kind}_{name}": ours[f"{kind}_{name}"] for kind in ("box", "mask") for name in NAMES
    }
    assert {name: value for name, value in figures.items() if not 0 < value < 1} == {}
    assert ours["box_ap_per_class"]["ninety"] == -1
    assert ours["mask_ap"] != ours["box_ap"]
    assert {a["iscrowd"] for a in truth["annotations"]} == {0, 1}


def test_crowds_matter_to_the_comparison(tmp_path):
    truth = random_truth(0)
    results = random_results(truth, 0)
    as_if_none = {**truth, "annotations": [{**a, "iscrowd": 0} for a in truth["annotations"]]}
    assert measured(truth, results, tmp_path) != measured(as_if_none, results, tmp_path)


def test_more_than_a_hundred_detections_an_image(tmp_path):
    truth = random_truth(1, images=2)
    results = random_results(truth, 1, per_image=2)
    results += [r for seed in range(60) for r in random_results(truth, seed, per_image=3)]
    assert max(Counter((r["image_id"], r["category_id"]) for r in results).values()) > 100
    assert_equal_to_pycocotools(truth, results, tmp_path)


def test_annotation_ids_from_zero_count_as_others_do(tmp_path):
    # pycocotools takes a match with annotation 0 for none; many exporters count from 0.
    results = random_results(random_truth(2), 2)
    from_one = measured(random_truth(2), results, tmp_path)
    from_zero = measured(random_truth(2, first_id=0), results, tmp_path)
    assert from_zero == from_one


def test_zero_detections(tmp_path):
    ours = assert_equal_to_pycocotools(random_truth(3), [], tmp_path)
    assert ours["box_ap"] == ours["mask_ap"] == 0
    json.dumps(ours, allow_nan=False)


def test_no_truth_at_all(tmp_path):
    truth = random_truth(4)
    results = random_results(truth, 4)
    ours = assert_equal_to_pycocotools({**truth, "annotations": []}, results, tmp_path)
    assert ours["box_ap"] == ours["mask_ap_per_class"]["one"] == -1
    json.dumps(ours, allow_nan=False)


def test_perfect_detections(tmp_path):
    truth = random_truth(5, crowds=False)
    ours = measured(truth, as_perfect_results(truth["annotations"]), tmp_path)
    assert ours["box_ap"] == ours["mask_ap"] == pytest.approx(1)


def test_boxes_alone(tmp_path):
    truth = random_truth(0)
    results = [
        {key: value for key, value in result.items() if key != "segmentation"}
        for result in random_results(truth, 0)
    ]
    ours = measured(truth, results, tmp_path, masks=False)
    assert ours["box_ap"] == pytest.approx(oracle(truth, results, "bbox").stats[0], abs=1e-12)
    assert not [name for name in ours if name.startswith("mask")]


@pytest.mark.parametrize("removed", [["area"], ["iscrowd"], ["area", "iscrowd"]])
def test_files_that_leave_out_what_has_a_default(removed, tmp_path):
    truth = random_truth(0, crowds=False)
    for annotation in truth["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    results = random_results(truth, 0)
    full = measured(truth, results, tmp_path)
    for annotation in truth["annotations"]:
        for key in removed:
            del annotation[key]
    assert measured(truth, results, tmp_path) == full


@pytest.mark.parametrize("segmentation", [None, []], ids=["none", "empty"])
def test_a_box_without_a_segmentation_is_filled_as_in_training(segmentation, tmp_path):
    truth = random_truth(0, crowds=False)
    results = random_results(truth, 0)
    for annotation in truth["annotations"]:
        x, y, width, height = annotation["bbox"]
        right, bottom = x + width, y + height
        annotation["segmentation"] = [[x, y, right, y, right, bottom, x, bottom]]
    expected = measured(truth, results, tmp_path)
    for annotation in truth["annotations"]:
        annotation["segmentation"] = segmentation
        if segmentation is None:
            del annotation["segmentation"]
    assert measured(truth, results, tmp_path) == expected


# What training leaves out; as truth it could not be found, or not as what it is.
UNREACHABLE = {
    "no width": {"bbox": [30, 30, 0, 50]},
    "outside": {"bbox": [SIDE + 1, 5, 10, 10]},
    # pycocotools takes four numbers for a box.
    "two points": {"segmentation": [[1, 1, 30, 1]]},
    "odd length": {"segmentation": [[1, 1, 30, 1, 30, 30, 1]]},
    "unknown image": {"image_id": 4},
}


@pytest.mark.parametrize("fault", UNREACHABLE.values(), ids=list(UNREACHABLE))
def test_what_training_leaves_out_is_no_truth(fault, tmp_path):
    truth = random_truth(0)
    sound = copy.deepcopy(truth)
    results = random_results(truth, 0)
    for each in [a for a in sound["annotations"] if not a["iscrowd"]][:5]:
        truth["annotations"].append({**each, "id": len(truth["annotations"]) + 1, **fault})
    ours = measured(truth, results, tmp_path)
    for prefix, kind in (("box", "bbox"), ("mask", "segm")):
        expected = dict(zip(NAMES, oracle(sound, results, kind).stats, strict=True))
        got = {name: ours[f"{prefix}_{name}"] for name in NAMES}
        assert got == pytest.approx(expected, abs=1e-12, rel=0)


def test_the_part_of_a_box_outside_the_image_is_no_truth(tmp_path):
    # A detector cannot find it: its boxes are cut off at the edges.
    truth = random_truth(5, crowds=False)
    inside = copy.deepcopy(truth["annotations"])
    for annotation in truth["annotations"]:
        x, y, width, height = annotation["bbox"]
        if x + width == SIDE:
            annotation["bbox"] = [x, y, 2 * width, height]
    assert [each["bbox"] for each in truth["annotations"]] != [each["bbox"] for each in inside]
    assert measured(truth, as_perfect_results(inside), tmp_path)["box_ap"] == pytest.approx(1)


def test_ids_of_images_may_be_texts(tmp_path):
    truth = random_truth(1)
    results = random_results(truth, 1)
    expected = measured(truth, results, tmp_path)
    # Of the numbers' order, and no numbers: "03" and "3" are two images.
    names = {image["id"]: f"{image['id']:06d}" for image in truth["images"]}
    names[truth["images"][0]["id"]] = "0" + names[truth["images"][1]["id"]]
    for record in (*truth["annotations"], *results):
        record["image_id"] = names[record["image_id"]]
    for image in truth["images"]:
        image["id"] = names[image["id"]]
    assert measured(truth, results, tmp_path) == expected


def test_results_are_collected_and_forgotten(tmp_path):
    path = tmp_path / "truth.json"
    truth = random_truth(0)
    path.write_text(json.dumps(truth))
    metrics = CocoMetrics(read_annotations(path), masks=True)
    results = random_results(truth, 0)
    untouched = copy.deepcopy(results)
    metrics.process(results)
    first = metrics.evaluate()
    assert metrics.results == untouched, "evaluation must not write into the results"
    assert metrics.evaluate() == first
    metrics.results.clear()
    assert metrics.evaluate()["box_ap"] == 0


def detections(masks, boxes):
    """Detections of classes 90, 1 and 5."""
    height, width = masks.shape[1:]
    whole = np.array([[0, 0, width - 1, height - 1]] * len(masks))
    return sv.Detections(
        xyxy=np.array(boxes, np.float32),
        confidence=np.array([0.75, 0.5, 0.25], np.float32),
        class_id=np.array([2, 0, 1]),
        mask=sv.CompactMask.from_dense(masks.astype(bool), whole, (height, width)),
    )


def test_coco_results_round_trip():
    rng = np.random.default_rng(0)
    masks = np.stack([ellipse(rng) for _ in range(3)])
    found = detections(masks, [[1.5, 2.25, 11.5, 22.25], [0, 0, 240, 240], [3, 4, 5, 7]])
    categories = [Category(c["id"], c["name"]) for c in CATEGORIES]
    boxes = found.xyxy.copy()
    results = json.loads(json.dumps(coco_results(found, 42, categories)))
    assert np.array_equal(found.xyxy, boxes), "the detections are not ours to change"
    assert [r["image_id"] for r in results] == [42] * 3
    assert [r["category_id"] for r in results] == [90, 1, 5]
    assert [r["score"] for r in results] == [0.75, 0.5, 0.25]
    assert results[0]["bbox"] == [1.5, 2.25, 10, 20]
    assert results[2]["bbox"] == [3, 4, 2, 3]
    for result, mask in zip(results, masks, strict=True):
        assert np.array_equal(oracle_mask.decode(result["segmentation"]), mask)


def test_results_are_read_as_they_were_written():
    masks = np.zeros((3, 97, 81), np.uint8)
    boxes = [[10.3, 20.7, 33.3, 77.7], [0, 0, 81, 97], [-5.5, 60.2, 18.9, 90]]
    for mask, (x, y, right, bottom) in zip(masks, boxes, strict=True):
        rows, columns = np.mgrid[:97, :81]
        mask[(columns >= x) & (columns <= right) & (rows >= y) & (rows <= bottom)] = 1
    found = detections(masks, boxes)
    categories = [Category(c["id"], c["name"]) for c in CATEGORIES]
    read = from_coco_results(coco_results(found, 42, categories), categories, (97, 81))
    assert np.array_equal(read.xyxy, found.xyxy)
    assert np.array_equal(read.confidence, found.confidence)
    assert np.array_equal(read.class_id, found.class_id)
    assert np.array_equal(read.mask.to_dense(), masks)
    assert len(from_coco_results([], categories, (97, 81))) == 0


@pytest.mark.parametrize("size", [(1, 1), (4, 1), (1, 4), (5, 7), (240, 240)])
def test_masks_are_encoded_as_pycocotools_does(size):
    rng = np.random.default_rng(0)
    height, width = size
    masks = [np.zeros(size, bool), np.ones(size, bool), rng.random(size) < 0.5]
    boxes = [[0, 0, width - 1, height - 1]] * len(masks)
    for _ in range(40):
        x, right = np.sort(rng.integers(0, width, 2))
        y, bottom = np.sort(rng.integers(0, height, 2))
        masks.append(np.zeros(size, bool))
        inside = masks[-1][y : bottom + 1, x : right + 1]
        inside[:] = rng.random(inside.shape) < rng.random() * 1.5
        boxes.append([x, y, right, bottom])
    found = sv.Detections(
        xyxy=np.array(boxes, np.float32),
        confidence=np.ones(len(boxes), np.float32),
        class_id=np.zeros(len(boxes), int),
        mask=sv.CompactMask.from_dense(np.stack(masks), np.array(boxes), size),
    )
    results = coco_results(found, 1, [Category(1, "one")])
    assert [r["segmentation"] for r in results] == [encoded(m.astype(np.uint8)) for m in masks]


@pytest.mark.parametrize("masks", [True, False])
def test_coco_results_of_nothing(masks):
    found = sv.Detections.empty()
    found.confidence = np.zeros(0, np.float32)
    if masks:
        dense = np.zeros((0, SIDE, SIDE), bool)
        found.mask = sv.CompactMask.from_dense(dense, np.zeros((0, 4)), (SIDE, SIDE))
    assert coco_results(found, 1, [Category(1, "one")]) == []
