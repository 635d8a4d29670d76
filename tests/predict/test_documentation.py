"""docs/classification.md: its loop of timm's parts runs, and what it names is there."""

import re
from pathlib import Path

from botvision.recipes.composition import recipe_names

TEXT = (Path(__file__).parents[2] / "docs" / "classification.md").read_text(encoding="utf-8")


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
