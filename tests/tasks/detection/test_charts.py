"""The evaluation's charts: what they count, and what they show of one class and of eighty."""

import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botvision.datasets.coco.file import read_annotations
from botvision.datasets.coco.store import Category
from botvision.tasks.detection.charts import (
    confusion_figure,
    confusion_matrix,
    draw_charts,
    per_class_figure,
    precision_recall_figure,
)

IDS = (7, 3, 90)  # of the classes, in no order


def annotations(instances, ids=IDS):
    """Annotations of some images from (category id, box, crowd) of each."""
    records = [
        {"image_id": image, "category_id": category, "bbox": list(box), "iscrowd": int(crowd)}
        for image, each in enumerate(instances)
        for category, box, crowd in each
    ]
    images = [{"id": i, "width": 100, "height": 100} for i in range(len(instances))]
    content = {
        "images": [{**image, "file_name": f"{image['id']}.png"} for image in images],
        "categories": [{"id": i, "name": f"class {i}"} for i in ids],
        "annotations": [{**record, "id": number} for number, record in enumerate(records)],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(content))
        return read_annotations(path)


def result(image, category, box, score):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


def iou(first, second):
    """Of two boxes [x, y, width, height], by counting quarter pixels."""

    def filled(box):
        x, y, width, height = (round(4 * value) for value in box)
        canvas = np.zeros((400, 400), bool)
        canvas[y : y + height, x : x + width] = True
        return canvas

    a, b = filled(first), filled(second)
    return (a & b).sum() / (a | b).sum()


def brute_force(truth, results):
    """The matching with the most pairs of the same class, then of the highest IoUs, one by one."""
    places = {category.id: place for place, category in enumerate(truth.categories)}
    counts = np.zeros((len(places) + 1,) * 2, int)
    for image, instances in truth.instances.items():
        true = [each for each in instances if not each["iscrowd"]]
        found = [r for r in results if r["image_id"] == image and r["score"] >= 0.5]
        pairs = sorted(
            (
                (t["category_id"] != f["category_id"], -iou(t["bbox"], f["bbox"]), i, j)
                for (i, t), (j, f) in itertools.product(enumerate(true), enumerate(found))
                if iou(t["bbox"], f["bbox"]) > 0.5
            ),
        )
        taken, used = {}, set()
        for _, _, i, j in pairs:
            if i not in taken and j not in used:
                taken[i] = j
                used.add(j)
        for i, each in enumerate(true):
            predicted = places[found[taken[i]]["category_id"]] if i in taken else -1
            counts[places[each["category_id"]], predicted] += 1
        for j, each in enumerate(found):
            if j not in used:
                counts[-1, places[each["category_id"]]] += 1
    return counts


def random_boxes(rng, number):
    corners = rng.integers(0, 50, (number, 2))
    return np.concatenate([corners, rng.integers(20, 45, (number, 2))], axis=1).tolist()


def random_case(seed, ids=IDS, images=6):
    rng = np.random.default_rng(seed)
    truth = annotations(
        [
            [(int(rng.choice(ids)), box, rng.random() < 0.2) for box in random_boxes(rng, n)]
            for n in rng.integers(0, 6, images)
        ],
        ids,
    )
    results = [
        result(image, int(rng.choice([each["category_id"], *ids])), box, float(rng.random()))
        for image, instances in truth.instances.items()
        for each in instances
        for box in (
            (np.array(each["bbox"]) + rng.integers(-4, 5, 4)).clip(0).tolist(),
            *random_boxes(rng, 1),
        )
    ]
    return truth, results


@pytest.mark.parametrize("seed", range(5))
def test_confusion_counts_equal_a_matching_by_hand(seed):
    truth, results = random_case(seed)
    expected = brute_force(truth, results)
    assert np.array_equal(confusion_matrix(truth, results), expected)
    # Right and wrong classes, misses and false alarms all occur, so that all are compared.
    inner = expected[:-1, :-1]
    assert np.trace(inner)
    assert inner.sum() > np.trace(inner)
    assert expected[:-1, -1].sum()
    assert expected[-1, :-1].sum()


def test_confusion_of_a_case_one_can_see():
    box, far = (10, 10, 20, 20), (60, 60, 20, 20)
    truth = annotations([[(3, box, False), (90, far, False)], [(3, box, True)], [(7, box, False)]])
    results = [
        result(0, 3, box, 0.5),  # right, just above the threshold
        result(0, 7, far, 0.9),  # found, but taken for another class
        result(2, 7, box, 0.499),  # right, but below the threshold
        result(2, 90, far, 0.9),  # nothing is there
    ]
    # Classes by id: 3, 7, 90, then the background; the crowd is in no row.
    assert confusion_matrix(truth, results).tolist() == [
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
    ]


def test_confusion_of_nothing():
    truth = annotations([[], [(3, (1, 1, 9, 9), True)]])
    assert not confusion_matrix(truth, []).any()
    confusion_figure(confusion_matrix(truth, []), ["a", "b", "c"]).draw_without_rendering()


def made_up(classes, seed=0):
    """Precision and metrics of so many classes; of the last there is no truth."""
    rng = np.random.default_rng(seed)
    names = [f"class {i}" for i in range(classes)]
    precision = {k: -np.sort(-rng.random((10, 101, classes)), axis=1) for k in ("box", "mask")}
    metrics = {}
    for kind, values in precision.items():
        if classes > 1:
            values[:, :, -1] = -1
        for place, size in enumerate(("", "_small", "_medium", "_large")):
            metrics[f"{kind}_ap{size}"] = 0.3 + 0.1 * place
            metrics[f"{kind}_ap{size}_per_class"] = {
                name: float(values[:, :, i].mean()) for i, name in enumerate(names)
            }
    return precision, metrics, names


def test_precision_recall_of_few_classes():
    precision, _, names = made_up(4)
    figure = precision_recall_figure(precision, names)
    panels = np.array(figure.axes).reshape(2, 3)
    for row, values in zip(panels, precision.values(), strict=True):
        expected = (values[0], values[5], values.mean(axis=0))  # IoU 0.5, 0.75, and all
        for axes, curves in zip(row, expected, strict=True):
            *classes, mean = axes.get_lines()
            assert [line.get_label() for line in classes] == names[:-1]  # the last has no truth
            for line, curve in zip(classes, curves.T[:-1], strict=True):
                assert np.allclose(line.get_ydata(), curve)
            assert np.allclose(mean.get_ydata(), curves[:, :-1].mean(axis=1))
            assert np.allclose(mean.get_xdata(), np.linspace(0, 1, 101))
            assert f"AP {curves[:, :-1].mean():.3f}" in axes.get_title()
    assert len(figure.legends[0].get_texts()) == 4


def test_precision_recall_of_many_classes_names_none():
    precision, _, names = made_up(80)
    figure = precision_recall_figure({"box": precision["box"]}, names)
    assert [len(axes.get_lines()) for axes in figure.axes] == [79 + 1] * 3
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["a class", "mean of the classes"]


def test_precision_recall_of_one_class_is_one_curve():
    precision, _, names = made_up(1)
    assert [len(a.get_lines()) for a in precision_recall_figure(precision, names).axes] == [1] * 6


def test_precision_recall_without_truth():
    figure = precision_recall_figure({"box": np.full((10, 101, 2), -1.0)}, ["a", "b"])
    assert [len(axes.get_lines()) for axes in figure.axes] == [0] * 3
    assert "no box truth" in figure.axes[0].get_title()


def test_per_class_rows_are_sorted_and_complete():
    _, metrics, names = made_up(5)
    figure = per_class_figure(metrics, names)
    bars, sizes = figure.axes
    rows = [label.get_text() for label in bars.get_yticklabels()]
    leading = metrics["mask_ap_per_class"]
    best_first = sorted(names[:-1], key=leading.get, reverse=True)
    assert rows == ["all classes", *best_first, names[-1]]
    widths = [patch.get_width() for patch in bars.patches]
    assert len(widths) == 2 * len(rows)
    box, mask = widths[: len(rows)], widths[len(rows) :]
    assert box[0] == metrics["box_ap"]
    assert mask[1:-1] == [leading[name] for name in best_first]
    assert [text.get_text() for text in bars.texts].count("no truth") == 2
    cells = sizes.images[0].get_array()
    assert cells.shape == (len(rows), 6)
    assert np.allclose(cells[0], [0.4, 0.5, 0.6] * 2)
    assert cells[1, 3] == metrics["mask_ap_small_per_class"][best_first[0]]
    assert cells.mask[-1].all()


def test_per_class_of_very_many_classes_shows_the_hard_ones():
    _, metrics, names = made_up(365)
    figure = per_class_figure(metrics, names)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(rows) == 101
    hardest = min(names[:-1], key=metrics["mask_ap_per_class"].get)
    assert hardest in rows
    assert "265 classes" in figure.axes[0].get_title()


@pytest.mark.parametrize("classes", [1, 80])
def test_confusion_figure(classes):
    matrix = np.arange((classes + 1) ** 2).reshape(classes + 1, classes + 1)
    matrix[-1, -1] = 0
    axes = confusion_figure(matrix, [f"class {i}" for i in range(classes)]).axes[0]
    shares = axes.images[0].get_array()
    assert np.allclose(shares[:-1].sum(axis=1), 1)  # rows are the truth
    assert np.allclose(shares[-1, :-1], matrix[-1, :-1] / matrix[:, :-1].sum(axis=0))
    assert shares.mask.sum() == 1
    assert shares.mask[-1, -1]
    assert axes.get_ylabel() == "truth"
    assert "IoU 0.5" in axes.get_title()
    assert "score 0.5" in axes.get_title()
    assert [t.get_text() for t in axes.get_yticklabels()][-1] == "background"
    counts = [text.get_text() for text in axes.texts]
    assert counts == (["1", "2"] if classes == 1 else [])


def test_all_charts_are_written(tmp_path):
    # Names that mean something to matplotlib, or that its font lacks, are but names.
    names = ["$x^", "_hidden", "\N{CJK UNIFIED IDEOGRAPH-732B}", "n" * 200]
    truth, results = random_case(0, ids=(1, 2, 3, 4))
    truth.categories = [Category(i + 1, name) for i, name in enumerate(names)]
    precision, metrics, stand_ins = made_up(4)
    for key in [key for key in metrics if key.endswith("_per_class")]:
        metrics[key] = {n: metrics[key][s] for n, s in zip(names, stand_ins, strict=True)}
    draw_charts(tmp_path, truth, results, metrics, precision)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"pr_curve.png", "per_class.png", "confusion_matrix.png"}
    for name in written:
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 200
            assert max(image.size) < 3000
            assert np.asarray(image.convert("L")).std() > 5
