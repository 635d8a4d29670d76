"""The examples of docs/classification.md and docs/attention_maps.md run."""

import re
import shutil
from pathlib import Path

from botvision.recipes.composition import recipe_names

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "classification.md").read_text(encoding="utf-8")


def test_the_loop_of_timms_parts_runs(colors, capsys):
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
        if "def main" in block
    ]
    names = {"__name__": "documentation"}
    exec(compile(code, "docs/classification.md", "exec"), names)
    names["main"](str(colors), size=32, epochs=1)
    assert re.search(r"top-1 \d+\.\d %", capsys.readouterr().out)


def test_the_recipes_are_there():
    named = set(re.findall(r"\b(?:small_(?:cifar|imagenet)|imagenet)_[a-z0-9_]*[a-z0-9]\b", TEXT))
    assert len(named) >= 5
    assert named <= set(recipe_names())


def test_looking_inside(trained_run, val_image, tmp_path, monkeypatch, capsys):
    text = (DOCS / "attention_maps.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shutil.copy(trained_run.best, tmp_path / "best.safetensors")
    shutil.copy(val_image, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/attention_maps.md", "exec"), {"__name__": "documentation"})
    assert "layer4.0.conv2.attention torch.Size([4, 4, 4])" in capsys.readouterr().out
    assert (tmp_path / "attention.png").exists()
