"""Images that a detector cannot take: named before the first step, or left out and counted."""

import json
import shutil

import pytest
from PIL import Image

from botvision.datasets.check.report import check_folder
from botvision.errors import BotvisionError
from botvision.predict.evaluation import evaluate
from botvision.predict.loading import load
from botvision.recipes.running import build_task


@pytest.fixture
def folder(handwriting, tmp_path):
    return shutil.copytree(handwriting, tmp_path / "data")


def edit(folder, split, change):
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def add_strip(folder, split, size=(400, 2)):
    Image.new("RGB", size).save(folder / "images" / "strip.png")
    width, height = size
    record = {"id": 9999, "file_name": "strip.png", "width": width, "height": height}
    edit(folder, split, lambda content: content["images"].append(record))


@pytest.mark.parametrize("size", [(400, 2), (2, 400)], ids=str)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_strip_is_named_before_the_first_step(folder, make_recipe, split, size):
    add_strip(folder, split, size)
    (error,) = [
        each.message
        for each in check_folder(folder, num_workers=0, image_size=64).all_findings()
        if each.severity == "error"
    ]
    text = f"strip.png: image of {size[0]} x {size[1]}: expected a longer side of at most"
    assert text in error
    with pytest.raises(BotvisionError, match=rf"strip\.png: image of {size[0]} x {size[1]}"):
        build_task(make_recipe(data=folder))
    task = build_task(make_recipe("data.skip_bad=true", data=folder))
    (note,) = [note for note in task.notes if "left out" in note]
    assert note.startswith("1 of ")
    assert f"instances_{split}.json left out" in note
    assert "strip.png" in note


def test_an_image_as_narrow_as_can_be_is_taken(folder, make_recipe):
    add_strip(folder, "val", (128, 2))
    task = build_task(make_recipe(data=folder))
    task.evaluate(task.model, None)


def test_val_leaves_out_what_its_run_left_out(folder, trained_run):
    edit(folder, "val", lambda content: content["images"].sort(key=lambda each: each["id"]))
    (folder / "images" / "val_000003.jpg").write_bytes(b"no image")
    with pytest.raises(BotvisionError, match=r"val_000003\.jpg"):
        evaluate(trained_run.best, folder)
    asked = evaluate(trained_run.best, folder, skip_bad=True)
    assert (asked["images"], asked["skipped"]) == (5, 1)
    predictor = load(trained_run.best)
    recipe = json.loads(json.dumps(predictor.description.recipe))
    recipe["data"]["skip_bad"] = True
    predictor.description = predictor.description.model_copy(update={"recipe": recipe})
    assert evaluate(predictor, folder) == asked

    def leave_out(content):
        (gone,) = [each for each in content["images"] if each["file_name"] == "val_000003.jpg"]
        content["images"].remove(gone)
        content["annotations"] = [
            each for each in content["annotations"] if each["image_id"] != gone["id"]
        ]

    edit(folder, "val", leave_out)
    same = {key: value for key, value in asked.items() if key not in ("images", "skipped")}
    assert evaluate(trained_run.best, folder) == same
