"""What ``botvision train --list`` and ``--show`` print."""

import io
import json

import yaml
from rich.console import Console

from botvision.cli.recipes import print_recipe, print_recipes, recipes_table
from botvision.recipes.composition import recipe_names
from botvision.recipes.reading import check_recipe, read_recipe


def shown(recipes, width=200):
    console = Console(file=io.StringIO(), width=width)
    console.print(recipes_table(recipes))
    return console.file.getvalue()


def test_the_table_has_one_row_per_recipe():
    recipes = [read_recipe(name) for name in recipe_names()]
    lines = shown(recipes).splitlines()
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert set(recipe_names()) <= rows.keys()
    row = rows["table8_botnet152"]
    assert "table 8" in row
    assert "box_ap 0.495, mask_ap 0.437" in row
    assert "box_ap50" not in row
    assert "not run yet" in row
    assert "box AP 0.629" in rows["demo"]
    # Names are what one copies, so none is broken on a narrow terminal.
    narrow = shown(recipes, width=80)
    assert all(name in narrow for name in recipe_names())


def test_a_recipe_that_says_nothing_about_itself():
    assert "mine [b]" in shown([check_recipe({"name": "mine [b]"}, "mine")])


def test_json_for_programs(capsys):
    print_recipes(as_json=True)
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert list(found) == recipe_names()
    row = found["imagenet_scaled_botnet_t7"]
    assert row["paper"] == {"top1": 0.847, "top5": 0.97}
    assert row["task"] == "classification"
    assert {"title", "source", "command", "hardware", "time", "measured"} <= row.keys()


def test_a_recipe_in_full(capsys, tmp_path):
    recipe = read_recipe("small_table4_content_only", ["data.folder='some where: else'"])
    print_recipe(recipe)
    text = capsys.readouterr().out
    content = yaml.safe_load(text)
    assert content["model"]["image_size"] == 128  # which the file takes from its base's base
    assert content["about"]["source"] == "table 4"
    path = tmp_path / "printed.yaml"
    path.write_text(text)
    assert read_recipe(str(path)) == recipe
