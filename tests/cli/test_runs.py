"""``botvision runs``: the list, the comparison and the image."""

import json

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three runs, one of them damaged, in ``runs`` of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, values in {"[first]": [0.1, 0.3], "second": [0.25], "damaged": []}.items():
        path = tmp_path / "runs" / "detection" / name
        path.mkdir(parents=True)
        recipe = {
            "name": name,
            "model": {"detector": "detr", "backbone": "botnet50"},
            "training": {"epochs": 2, "learning_rate": 0.5},
        }
        (path / "recipe.yaml").write_text("[" if name == "damaged" else json.dumps(recipe))
        lines = [
            {"step": 10 * epoch, "epoch": epoch, "metrics": {"box_ap": value, "box_ap50": 0.5}}
            for epoch, value in enumerate(values, start=1)
        ]
        lines.insert(0, {"step": 1, "learning_rate": 0.1, "losses": {"loss": 2.0}})
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "runs" / "detection"


def test_list(folder, cli):
    status, out, error = cli("runs")
    assert (status, error) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["detection/[first]", "20/20", "finished", "box_ap", "0.300", "0.300"] in rows
    at = rows.index(["detection/second", "10/20", "not", "finished", "box_ap", "0.250", "0.250"])
    assert rows[at + 1][:3] == ["detection:", "detr", "botnet50"]
    assert ["detection/damaged", "unreadable"] in rows
    assert "recipe.yaml is not YAML" in out
    assert max(map(len, out.splitlines())) <= 80


def test_list_as_json_and_sorted(folder, cli):
    status, out, _ = cli("runs", "--json", "--sort", "box_ap")
    assert status == 0
    listed = json.loads(out)
    assert [run["run"].rpartition("/")[2] for run in listed] == ["[first]", "second", "damaged"]
    assert [run.get("best", {}).get("box_ap") for run in listed] == [0.3, 0.25, None]
    assert listed[2]["fault"] == "recipe.yaml is not YAML"


def test_comparison(folder, cli):
    status, out, error = cli("runs", folder / "[first]", folder / "second")
    assert (status, error) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["[first]", "second"] in rows
    assert ["name", "[first]", "second"] in rows
    assert ["step", "of", "the", "best", "20", "10"] in rows
    assert ["box_ap", "0.300", "0.250"] in rows
    assert "learning_rate" not in out
    status, out, _ = cli("runs", folder / "[first]", folder / "second", "--json")
    compared = json.loads(out)
    assert compared["recipe"] == {"name": ["[first]", "second"]}
    assert compared["metrics"]["box_ap"] == [0.3, 0.25]
    assert [run["state"] for run in compared["runs"]] == ["finished", "not finished"]


@pytest.mark.parametrize("arguments", [[], ["runs/detection/[first]", "runs/detection/second"]])
def test_plot(arguments, folder, cli, tmp_path):
    status, _, error = cli("runs", *arguments, "--plot", "curves.png")
    assert (status, error) == (0, "")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000


def test_no_runs_yet(cli, tmp_path):
    status, out, _ = cli("runs", tmp_path)
    assert (status, "no runs in" in out) == (0, True)
    assert cli("runs", tmp_path, "--json")[1] == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["runs/detection/second", "nowhere"], "nowhere: expected a run folder"),
        (["runs/detection/second", "runs/detection/damaged"], "recipe.yaml is not YAML"),
        (["--sort", "box_app"], "did you mean box_ap"),
        (["--plot", "nowhere/a.png"], "nowhere/a.png: no such folder"),
        (["runs/detection/damaged", "--plot", "a.png"], "a.png: nothing to draw"),
    ],
)
def test_mistakes_are_one_line(arguments, message, folder, cli):
    status, out, error = cli("runs", *arguments)
    assert (status, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
