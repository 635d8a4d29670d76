"""Classes of COCO files: matched by name, named once, and at least one."""

import json
import shutil

import pytest

from botvision.datasets.check.classes import matched_classes
from botvision.datasets.check.report import check_folder
from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.coco.store import Category
from botvision.errors import BotvisionError

RECORDS = [{"id": i, "file_name": f"{i}.png", "width": 96, "height": 64} for i in (1, 2)]
CLASSES = [{"id": 1, "name": "card"}, {"id": 2, "name": "sail"}]
TURNED = [{"id": 1, "name": "sail"}, {"id": 2, "name": "card"}]
OUTLINE = [[4, 5, 24, 5, 24, 35, 4, 35]]


def box(image_id, category_id, **changes):
    record = {"image_id": image_id, "category_id": category_id, "bbox": [4, 5, 20, 30]}
    return {**record, "segmentation": OUTLINE, **changes}


def named(*names, first=1):
    return [{"id": number, "name": name} for number, name in enumerate(names, first)]


@pytest.fixture
def splits(write_coco):
    """A function that writes train and val of two classes, val with categories of its own."""

    def run(categories, category_id=1, train=CLASSES):
        write_coco(RECORDS[:1], [box(1, 1)], categories=train)
        return write_coco(RECORDS[1:], [box(2, category_id)], categories=categories, split="val")

    return run


def errors(folder):
    report = check_folder(folder, num_workers=0, image_size=64)
    return [each.message for each in report.all_findings() if each.severity == "error"]


@pytest.mark.parametrize(
    ("categories", "category_id"),
    [
        (TURNED, 2),
        (named("sail", "card", first=7), 8),
        (named("card", first=0), 0),
        (named("card", first=2), 2),
        (named("card", first=90), 90),
    ],
    ids=["turned", "other ids", "part from 0", "part with an id of another class", "part of 90"],
)
def test_classes_are_matched_by_name(splits, categories, category_id):
    folder = splits(categories, category_id)
    assert errors(folder) == []
    train, val = (CocoInstances(folder, split) for split in ("train", "val"))
    val.take_classes(train.categories, "train")
    assert [each.name for each in val.categories] == ["card", "sail"]
    assert val[0, 0][1]["labels"].tolist() == train[0, 0][1]["labels"].tolist() == [1]
    (record,) = val.annotations.image_instances(0)
    assert record["category_id"] == category_id  # each file's own
    assert len({each.id for each in val.categories}) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Card", ["'Card' ('card' there, which differs in case, spaces or Unicode form)"]),
        (" card", ["' card' ('card' there"]),
        ("car_d", ["'car_d'"]),
        ("boat", ["got 'boat'", "'card', 'sail'"]),
    ],
)
def test_a_class_that_train_does_not_have(splits, name, words):
    folder = splits(named(name, "sail"))
    (message,) = errors(folder)
    train, val = (CocoInstances(folder, split) for split in ("train", "val"))
    with pytest.raises(BotvisionError) as caught:
        val.take_classes(train.categories, "instances_train.json")
    assert str(caught.value) == message
    for word in ("instances_val.json", "instances_train.json", *words):
        assert word in message


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("other", ["card", "card ", " card"])
def test_two_classes_of_one_name(splits, split, other):
    twins = named("card", "sail", other)
    folder = splits(*((CLASSES, 1, twins) if split == "train" else (twins,)))
    (message,) = errors(folder)
    assert f"instances_{split}.json: categories 1 and 3 are both called" in message


def test_a_class_of_two_unicode_forms():
    composed, apart = [Category(1, "caf\u00e9")], [Category(1, "cafe\u0301")]
    with pytest.raises(BotvisionError, match="differs in case, spaces or Unicode form"):
        matched_classes("val.json", apart, composed, "train")


def test_no_classes_at_all(write_coco):
    folder = write_coco(RECORDS[:1], [], categories=[])
    write_coco(RECORDS[1:], [], categories=[], split="val")
    (message,) = errors(folder)
    assert message.endswith(
        "instances_train.json: categories: expected at least one class, got none"
    )


def test_charts_of_no_class():
    from botvision.tasks.detection.charts import per_class_figure

    sizes = {f"box_ap{size}": -1.0 for size in ("", "_small", "_medium", "_large")}
    per_class = {f"{name}_per_class": {} for name in sizes}
    per_class_figure({**sizes, **per_class}, [])


@pytest.fixture
def renumbered(handwriting, tmp_path):
    """The handwriting data, whose val numbers its classes the other way round."""
    folder = tmp_path / "data"
    shutil.copytree(handwriting, folder)
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    ids = [each["id"] for each in content["categories"]]
    other = dict(zip(ids, reversed(ids), strict=True))
    for record, key in (
        *((each, "id") for each in content["categories"]),
        *((each, "category_id") for each in content["annotations"]),
    ):
        record[key] = other[record[key]]
    path.write_text(json.dumps(content))
    return folder, other


def test_metrics_do_not_depend_on_the_ids(handwriting, renumbered, make_recipe):
    from botvision.recipes.running import build_task

    folder, other = renumbered
    found = []
    for data in (handwriting, folder):
        task = build_task(make_recipe("model.box_score_thresh=0.0", data=data))
        metrics = task.evaluate(task.model, None)
        found.append((metrics, task.results()))
    (metrics, results), (own_metrics, own_results) = found
    assert own_metrics == metrics
    assert results
    assert [other[each["category_id"]] for each in results] == [
        each["category_id"] for each in own_results
    ]


def test_val_matches_the_weights_by_name(trained_run, renumbered):
    from botvision.predict.evaluation import evaluate

    folder, _ = renumbered
    assert evaluate(trained_run.best, folder) == evaluate(trained_run.best)


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_refuses_two_classes_of_one_name(handwriting, make_recipe, tmp_path, split):
    from botvision.recipes.running import build_task

    folder = tmp_path / "data"
    shutil.copytree(handwriting, folder)
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    for each in content["categories"][1:3]:
        each["name"] = "part"
    path.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=rf"instances_{split}.json: categories .* both called"):
        build_task(make_recipe(data=folder))
