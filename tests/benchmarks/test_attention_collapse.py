"""The experiment on attention's rates: its table, and one run of it."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_documented_table_is_that_of_the_rows(module, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    module("attention_collapse").main(ROOT / "benchmarks" / "results")
    printed = capsys.readouterr().out
    documented = (ROOT / "docs" / "attention_maps.md").read_text()
    rows = [line for line in printed.splitlines() if line.startswith("│")]
    assert len(rows) == 6
    for row in rows:
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert f"| {' | '.join(cells)} |" in documented


@pytest.mark.parametrize("setting", ["recipe", "resnet"])
def test_a_run(setting, module, tiny, tmp_path, monkeypatch, undrawn, capsys):
    experiment = module("attention_collapse")
    monkeypatch.setattr(experiment, "_SCENES", (4, 3))
    given = {"seed": [3], "setting": [setting], "override": [*tiny, "training.epochs=1"]}
    experiment.main(tmp_path, **given)
    (row,) = json.loads((tmp_path / "attention_collapse.json").read_text())["runs"]
    assert (row["setting"], row["seed"]) == (setting, 3)
    assert row["attention_lr_scale"] == (0.1 if setting == "recipe" else 1)
    assert len(row["attention"]) == (2 if setting == "recipe" else 0)
    weights = tmp_path / "runs" / f"{setting}_seed3" / "best.safetensors"
    written = weights.stat().st_mtime_ns
    experiment.main(tmp_path, **given)  # its row is there
    assert weights.stat().st_mtime_ns == written
    assert setting in capsys.readouterr().out
