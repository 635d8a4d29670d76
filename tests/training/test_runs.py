"""Run folders summed up, with their damages, and compared."""

import json
import math

import pytest
import yaml

from botvision.errors import BotvisionError
from botvision.training.runs import (
    compared_metrics,
    differing_values,
    find_runs,
    open_run,
    read_run,
    run_names,
    sorted_runs,
)

MASK_RCNN = {"detector": "mask_rcnn", "backbone": "botnet50"}


@pytest.fixture
def write_run(tmp_path):
    """Writes a run folder as training leaves it; ``values`` are the metric's, an epoch each."""

    def write(
        name, values=(), *, metric="mask_ap", task="detection", model=MASK_RCNN, more=(), **training
    ):
        path = tmp_path / name
        path.mkdir(parents=True)
        recipe = {"name": name, "about": {"title": name}, "task": task, "model": model}
        recipe["training"] = {"epochs": 4, **training}
        (path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        (path / "environment.json").write_text("{}")
        lines = []
        for epoch, value in enumerate(values, start=1):
            step = 5 * epoch
            lines.append({"step": step, "learning_rate": 0.1, "losses": {"loss": 1 / epoch}})
            lines.append({"step": step, "epoch": epoch, "metrics": {metric: value, "other": step}})
        lines.extend(more)
        if lines:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (path / "metrics.jsonl").write_text(text)
        return path

    return write


def test_a_finished_run(write_run):
    run = read_run(write_run("a", [0.1, 0.5, 0.3, 0.4]))
    assert run.summary() == {
        "run": str(run.folder),
        "state": "finished",
        "written": run.written.isoformat(timespec="seconds"),
        "task": "instance_segmentation",
        "network": "mask_rcnn botnet50",
        "steps": 20,
        "total_steps": 20,
        "main_metric": "mask_ap",
        "best": {"mask_ap": 0.5, "other": 20},
        "last": {"mask_ap": 0.4, "other": 20},
    }
    assert run.best_evaluation("mask_ap")["step"] == 10
    assert run.metrics == {"mask_ap": 0.5, "other": 10}
    assert (run.best, run.last) == (
        run.folder / "best.safetensors",
        run.folder / "last.safetensors",
    )


@pytest.mark.parametrize(
    ("values", "training", "state", "total"),
    [
        ([], {}, "not begun", None),
        ([0.1, 0.2], {}, "not finished", 20),
        ([0.1, 0.2], {"max_steps": 10}, "finished", 10),
        ([0.1, 0.2], {"max_steps": 12}, "not finished", 12),
        ([0.1, 0.2], {"max_steps": 1000}, "not finished", 20),
        ([0.3, 0.2, 0.1], {"patience": 2}, "stopped early", 20),
        ([0.3, 0.4, 0.1], {"patience": 2}, "not finished", 20),
        ([0.3, 0.2, 0.3], {"patience": 2}, "stopped early", 20),  # as good is no better
        ([0.3, 0.2, 0.1, 0.1], {"patience": 3}, "finished", 20),
        ([0.1, 0.2], {"max_steps": "many", "patience": [1]}, "not finished", 20),
    ],
)
def test_state(values, training, state, total, write_run):
    run = read_run(write_run("a", values, **training))
    assert (run.state, run.total_steps) == (state, total)
    assert run.fault is None
    json.dumps(run.summary())


def test_a_run_that_was_never_evaluated(write_run):
    lines = [{"step": 7, "learning_rate": 0.1, "losses": {"a": 1.0}}]
    run = read_run(write_run("a", more=lines))
    assert (run.steps, run.state, run.main_metric) == (7, "not finished", None)
    assert run.summary()["best"] == {}


@pytest.mark.parametrize(
    ("task", "model", "kind", "network"),
    [
        ("classification", {"classifier": "botnet26"}, "classification", "botnet26"),
        ("detection", {"detector": "detr", "backbone": "botnet50"}, "detection", "detr botnet50"),
        ("detection", {"detector": "faster_rcnn", "backbone": "b"}, "detection", "faster_rcnn b"),
        ("detection", MASK_RCNN, "instance_segmentation", "mask_rcnn botnet50"),
        ("counting", {"counter": "c"}, "counting", ""),  # a task that is not registered here
    ],
)
def test_tasks(task, model, kind, network, write_run):
    run = read_run(write_run("a", [0.1], task=task, model=model))
    assert (run.kind, run.network) == (kind, network)


def test_main_metric_is_the_one_that_chooses_the_best(write_run):
    run = read_run(write_run("a", [0.1], metric="top1", best_metric="other"))
    assert run.main_metric == "other"
    assert read_run(write_run("b", [0.1], metric="top1")).main_metric == "top1"


def test_a_metric_without_truth_is_no_value(write_run):
    run = read_run(write_run("a", [-1, 0.2, -1]))
    assert (run.best_value("mask_ap"), run.last_value("mask_ap")) == (0.2, None)
    assert read_run(write_run("b", [-1])).best_value("mask_ap") is None


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("recipe.yaml", None, "recipe.yaml is missing"),
        ("recipe.yaml", b"[", "recipe.yaml is not YAML"),
        ("recipe.yaml", b"", "expected keys, got NoneType"),
        ("recipe.yaml", b"- a", "expected keys, got list"),
        ("recipe.yaml", b"a: \xff", "'utf-8' codec"),
        ("recipe.yaml", b"!!python/object/apply:os.getcwd []", "recipe.yaml is not YAML"),
        ("metrics.jsonl", b'{"step": "\xff', "'utf-8' codec"),
    ],
)
def test_damaged_folders_are_listed_with_their_fault(file, content, fault, write_run, tmp_path):
    write_run("whole", [0.1])
    path = write_run("damaged", [0.1])
    (path / file).unlink() if content is None else (path / file).write_bytes(content)
    damaged, whole = find_runs(tmp_path)
    assert (damaged.folder, damaged.state) == (path, "unreadable")
    assert fault in damaged.fault
    assert damaged.summary()["fault"] == damaged.fault
    assert whole.fault is None
    with pytest.raises(BotvisionError, match="damaged: expected a run folder"):
        open_run(path)


@pytest.mark.parametrize(
    "line",
    [
        "3",
        '{"step": 9, "losses": {"lo',
        '{"losses": {"a": 1}}',
        '{"step": 9, "metrics": {"mask_ap": 0.9}}',
        '{"step": 9, "epoch": 0, "metrics": {"mask_ap": 0.9}}',
        '{"step": 9, "epoch": 2, "metrics": {"mask_ap": null}}',
        '{"step": 9, "losses": {"a": 1}}',
    ],
)
def test_half_written_lines_are_left_out(line, write_run):
    path = write_run("a", [0.1])
    with (path / "metrics.jsonl").open("a") as file:
        file.write(line)
    run = read_run(path)
    assert (run.fault, run.steps, run.best_value("mask_ap")) == (None, 5, 0.1)


def test_a_recipe_that_is_older_or_of_other_keys_is_no_fault(write_run):
    path = write_run("a", [0.1])
    (path / "recipe.yaml").write_text("model: 3\ntraining: []\n")
    assert json.dumps(read_run(path).summary())


def test_runs_are_found_at_any_depth_and_nothing_else(write_run, tmp_path):
    paths = [write_run(name) for name in ("a", "detection/b", "detection/c/d")]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.yaml").write_text("name: a recipe of the user's, not a run")
    (paths[0] / "state").mkdir()
    assert [run.folder for run in find_runs(tmp_path)] == paths
    assert [run.folder for run in find_runs(paths[1])] == [paths[1]]
    with pytest.raises(BotvisionError, match="nowhere: no such folder"):
        find_runs(tmp_path / "nowhere")


def test_sorting(write_run, tmp_path):
    write_run("a", [0.1, 0.3])
    write_run("b", [0.5, 0.0])
    write_run("c", [0.9], metric="top1")
    write_run("d")
    found = find_runs(tmp_path)
    assert [run.folder.name for run in sorted_runs(found, "mask_ap")] == ["b", "a", "c", "d"]
    with pytest.raises(
        BotvisionError, match=r"did you mean mask_ap.*runs have mask_ap, other, top1"
    ):
        sorted_runs(found, "mask_app")


@pytest.mark.parametrize("metric", ["loss", "calibration_error"])
def test_of_losses_the_lowest_is_the_best(metric, write_run, tmp_path):
    write_run("a", [2.0, 0.5, 3.0], metric=metric, task="classification")
    write_run("b", [1.0], metric=metric, task="classification")
    found = sorted_runs(find_runs(tmp_path)[::-1], metric)
    assert [run.folder.name for run in found] == ["a", "b"]
    assert found[0].best_value(metric) == 0.5


def test_comparison(write_run):
    first = read_run(write_run("x/a", [0.1, 0.4, 0.2], learning_rate=0.1, schedule="cosine"))
    other = {**MASK_RCNN, "backbone_arguments": {"stride": 16}}
    second = read_run(write_run("x/b", [0.3], model=other, learning_rate=0.2, schedule="cosine"))
    begun = read_run(write_run("c", learning_rate=0.2, schedule="cosine"))
    runs = [first, second, begun]
    assert differing_values(runs) == {
        "name": ["x/a", "x/b", "c"],
        "training.learning_rate": [0.1, 0.2, 0.2],
        "model.backbone_arguments.stride": [None, 16, None],
    }
    assert compared_metrics(runs) == {
        "step": [10, 5, None],
        "mask_ap": [0.4, 0.3, None],
        "other": [10, 5, None],
    }
    assert run_names(runs) == ["x/a", "x/b", "c"]
    assert run_names([first]) == ["a"]


def test_a_trained_run(trained_run):
    run = open_run(trained_run.path)
    assert (run.state, run.steps, run.total_steps) == ("finished", 8, 8)
    assert run.kind == "instance_segmentation"
    assert 0 <= run.best_value("mask_ap") <= 1
    assert math.isfinite(run.last_value("box_ap"))
