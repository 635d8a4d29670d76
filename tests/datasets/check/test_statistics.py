"""Statistics of COCO files against counts by hand, and what the image shows of them."""

import json

import numpy as np
import pytest
from PIL import Image

from botvision.datasets.check.statistics import count_statistics, draw_statistics, statistics_figure
from botvision.datasets.coco.file import read_annotations


def instance(image_id, category_id, box, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), **more}


@pytest.fixture
def written(write_coco):
    """Annotations as read from a file of three images (conftest's classes cup, cat and dog)."""

    def write(*instances):
        images = [
            {"id": i, "file_name": f"{i}.png", "width": 400, "height": 200} for i in (1, 2, 3)
        ]
        folder = write_coco(images, instances)
        return read_annotations(folder / "annotations" / "instances_train.json")

    return write


@pytest.fixture
def annotations(written):
    return written(
        instance(1, 1, (0, 0, 200, 50), area=31.9**2),  # the area counts, not the box
        instance(1, 1, (0, 0, 40, 40), area=32**2),
        instance(1, 90, (10, 10, 100, 90)),  # without an area its box counts: 9000 < 96²
        instance(2, 1, (0, 0, 96, 96)),
        instance(2, 1, (0, 0, 100, 100), iscrowd=1),
        instance(2, 5, (0, 0, 0, 10)),  # no area
        instance(7, 5, (0, 0, 10, 10)),  # no such image
        instance(2, 1, (300, 0, 200, 100), area=None),  # cut off at the edge: 100 x 100
    )


def test_counts(annotations):
    assert count_statistics(annotations) == {
        "images": 3,
        "images_without_instances": 1,
        "instances": 5,
        "crowds": 1,
        "instances_per_image": {"mean": pytest.approx(5 / 3), "most": 3},
        "instances_per_class": {"cat": 4, "cup": 1, "dog": 0},
        "sizes": {"small": 1, "medium": 2, "large": 2},
        "skipped": {"box without area inside the image": 1, "image_id without an image": 1},
        "clipped": 1,
    }
    assert next(iter(count_statistics(annotations)["instances_per_class"])) == "cat"
    json.dumps(count_statistics(annotations))


def panels(figure):
    return {axes.get_title().partition(":")[0]: axes for axes in figure.axes if axes.get_title()}


def test_the_image_shows_the_counts(annotations):
    figure = statistics_figure(annotations)
    shown = panels(figure)
    classes = shown["Instances of each class"]
    assert [label.get_text() for label in classes.get_yticklabels()] == ["cat", "cup", "dog"]
    assert [bar.get_width() for bar in classes.patches] == [4, 1, 0]
    heights = [bar.get_height() for bar in shown["Instances of an image"].patches]
    assert heights == [1, 0, 1, 1]  # images with 0, 1, 2 and 3 instances
    sizes = shown["Sizes"]
    assert sizes.get_xscale() == "log"
    assert sum(bar.get_height() for bar in sizes.patches) == 5
    below = [bar for bar in sizes.patches if bar.get_x() + bar.get_width() <= 32.001]
    assert sum(bar.get_height() for bar in below) == 1
    assert {32.0, 96.0} <= {line.get_xdata()[0] for line in sizes.get_lines()}
    (drawn,) = shown["Boxes"].collections
    counts = np.ma.filled(drawn.get_array(), 0)
    assert counts.sum() == 5
    assert counts[12:13, 24:26].sum() == 1  # half as wide as the image, a quarter as high
    text = "\n".join(t.get_text() for axes in figure.axes for t in axes.texts)
    assert "1: image_id without an image" in text
    assert "1 crowds" in text


def test_many_classes_are_cut_to_the_most_frequent(written):
    annotations = written(instance(1, 1, (0, 0, 10, 10)))
    kind = type(annotations.categories[0])
    annotations.categories = [kind(i, f"class {i}") for i in range(1, 91)]
    axes = panels(statistics_figure(annotations))["Instances of each class"]
    assert len(axes.patches) == 40
    assert axes.get_yticklabels()[0].get_text() == "class 1"
    assert "40 most frequent of 90" in axes.get_title()


@pytest.mark.parametrize("instances", [[], [(0, 0, 400, 200)], [(0, 0, 0.01, 0.01)]])
def test_drawing_of_nothing_and_of_extremes(instances, written, tmp_path):
    path = tmp_path / "labels.png"
    draw_statistics(written(*(instance(1, 1, box) for box in instances)), path)
    with Image.open(path) as image:
        assert np.asarray(image.convert("L")).std() > 5
