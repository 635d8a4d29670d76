"""The run folder and the state in it."""

import csv
import json

import pytest
import torch
import yaml
from PIL import Image

from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.images.figures import save_figure
from botvision.recipes.reading import check_recipe
from botvision.recipes.running import new_run_path, train_recipe
from botvision.training.curves import curves_figure
from botvision.training.run_folder import RunFolder


def test_a_run_wrote_what_it_promises(trained_run, make_recipe):
    names = {path.relative_to(trained_run.path).as_posix() for path in trained_run.path.rglob("*")}
    assert names == {
        *("recipe.yaml", "environment.json", "metrics.jsonl", "results.csv", "results.png"),
        *("train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg", "labels.png"),
        *("val_epoch001.jpg", "val_epoch002.jpg", "val_predictions.jpg", "predictions.json"),
        *("pr_curve.png", "per_class.png", "confusion_matrix.png", "attention.png"),
        *("best.safetensors", "last.safetensors", "state", "state/lock", "state/training.pt"),
    }
    for name in names:
        if not name.endswith((".png", ".jpg")):
            continue
        with Image.open(trained_run.path / name) as image:
            image.load()
            assert len(image.convert("RGB").getcolors(1 << 24)) > 100, f"{name} is blank"
    recipe = yaml.safe_load(trained_run.recipe.read_text())
    assert check_recipe(recipe, source="") == make_recipe()
    environment = json.loads((trained_run.path / "environment.json").read_text())
    assert torch.__version__.startswith(environment["packages"]["torch"])


def test_metrics_and_table_agree(trained_run):
    records = [json.loads(line) for line in trained_run.metrics.read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    evaluations = [record for record in records if "metrics" in record]
    with (trained_run.path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["epoch"]), int(r["step"])) for r in rows] == [(1, 4), (2, 8)]
    for row, record in zip(rows, evaluations, strict=True):
        assert {k: float(v) for k, v in list(row.items())[2:]} == record["metrics"]


def test_results_carry_original_ids(trained_run):
    results = json.loads((trained_run.path / "predictions.json").read_text())
    assert results
    assert {r["category_id"] for r in results} <= {10 * digit + 3 for digit in range(1, 11)}
    assert {r["image_id"] for r in results} == set(range(1, 7))


def test_existing_folder_is_an_error_before_anything_is_written(
    make_recipe, tmp_path, display, tree
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(BotvisionError, match=r"run: the run folder exists; .*resume the run"):
        train_recipe(make_recipe(), tmp_path / "run", display=display)
    with pytest.raises(BotvisionError, match="the run folder exists"):
        RunFolder.create(tmp_path / "run", {})
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "override",
    ["model.backbone=no_such_net", "model.backbone_weights=nowhere", "data.folder=nowhere"],
)
def test_wrong_data_or_model_leaves_nothing_behind(override, make_recipe, tmp_path, display):
    with pytest.raises(BotvisionError):
        train_recipe(make_recipe(override), tmp_path / "runs" / "run", display=display)
    assert list(tmp_path.iterdir()) == []


def test_new_runs_are_numbered(make_recipe, tmp_path):
    recipe = make_recipe("name=mine")
    first = new_run_path(tmp_path, recipe)
    assert first == tmp_path / "instance_segmentation" / "mine"
    first.mkdir(parents=True)
    assert new_run_path(tmp_path, recipe).name == "mine-2"
    first.with_name("mine-2").mkdir()
    assert new_run_path(tmp_path, recipe).name == "mine-3"
    boxes = make_recipe("model.detector=faster_rcnn")
    assert new_run_path(tmp_path, boxes).parent.name == "detection"


def test_rewinding_forgets_later_lines_only(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"a": 1})
    for step in (1, 2, 3):
        run.append({"step": step, "losses": {}})
        run.append({"step": step, "metrics": {}})
    run.rewind(2, evaluated=1)  # stopped in the evaluation after step 2
    assert [(r["step"], "metrics" in r) for r in run.history()] == [
        (1, False),
        (1, True),
        (2, False),
    ]
    run.append({"step": 2, "metrics": {}})
    assert [record["step"] for record in run.history()] == [1, 1, 2, 2]


def test_curves_of_nothing(tmp_path):
    save_figure(curves_figure([], ["box_ap"]), tmp_path / "results.png")
    assert (tmp_path / "results.png").is_file()


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"a": 1})
    with replacing(run.state) as temporary:
        temporary.write_bytes(b"whole")
    temporary.write_bytes(b"half")  # as SIGKILL leaves it
    mine = run.state.with_name(".mine.pt")
    mine.write_bytes(b"precious")
    run.rewind(0, evaluated=0)
    assert sorted(run.state.parent.iterdir()) == [mine, run.state]
