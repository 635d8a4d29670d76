"""The library's files: each says what it is for, how it is run and whose its values are."""

import re
from importlib import resources
from pathlib import Path

import pytest
import yaml

from botvision.recipes.composition import recipe_names
from botvision.recipes.reading import read_recipe

LIBRARY = Path(str(resources.files("botvision.recipes"))) / "library"
CIFAR = {f"small_cifar_{network}" for network in ("resnet", "botnet", "botnet_s1")}
TRAINED = {"demo", "finetune_cpu", *CIFAR}  # to the end, with figures to show
FILES = sorted(LIBRARY.rglob("*.yaml"))
OWNERS = {
    "P": "the paper's",
    "T": "the TPU detection code's",
    "V": "torchvision's default",
    "C": "DETR's authors' (Carion et al. 2020)",
    "O": "ours",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert len([other for other in FILES if other.stem == path.stem]) == 1
    assert re.fullmatch(r"[a-z0-9_.]+", path.stem)
    if path.parent.name == "pieces":
        assert not {"name", "about"} & content.keys()
        return
    assert content["name"] == path.stem
    assert list(content)[: 3 if "base" in content else 2][-2:] == ["name", "about"]
    about = content["about"]
    # Written out in each file, for whoever opens it.
    assert {"title", "command", "hardware", "time", "measured"} <= about.keys()
    assert all(str(value).strip() for value in about.values())
    assert ("source" in about) == (path.parent != LIBRARY)
    if path.stem != "demo":
        assert f"botvision train {path.stem} --data " in about["command"]
    if path.stem not in TRAINED:
        assert about["measured"] == "not run yet"
        assert "estimated" in about["time"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_says_whose_it_is(path):
    text = path.read_text(encoding="utf-8")
    section, used = None, set()
    for line in text.splitlines():
        if re.match(r"[a-z]", line):
            section = line.partition(":")[0]
        is_value = section in ("model", "data", "training") and not line.endswith(":")
        mark = re.search(r"# ([A-Z])(?:: \S.*)?$", line)
        assert (mark is not None) == is_value, line
        if mark:
            used.add(mark[1])
    legend = re.findall(r"^# Whose the values are: (.*)\.$", text, re.MULTILINE)
    expected = [f"{letter} {whose}" for letter, whose in OWNERS.items() if letter in used]
    assert legend == ([", ".join(expected)] if expected else [])


def command_options():
    import typer.main

    from botvision.cli import app

    train = typer.main.get_command(app).commands["train"]
    return {option for parameter in train.params for option in parameter.opts}


@pytest.mark.parametrize("name", recipe_names())
def test_the_command_is_one(name):
    words = read_recipe(name).about.command.split()
    if name == "demo":
        assert words == ["botvision", "demo"]
        return
    if "torchrun" in words:
        assert words[:4] == ["torchrun", "--nproc-per-node", "8", "--no-python"]
        words = words[4:]
    program, command, recipe, *options = words
    assert (program, command, recipe) == ("botvision", "train", name)
    assert set(options[::2]) <= command_options()


def test_the_documentation_names_every_recipe():
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z0-9_.]+)`", text)
    assert not set(recipe_names()) - set(named)
    # The first column of its tables names nothing that is not there.
    rows = re.findall(r"^\| `([a-z0-9_.]+)`", text, re.MULTILINE)
    known = {path.stem for path in FILES}
    assert rows
    assert not set(rows) - known


def test_the_demos_values_are_those_that_were_measured():
    recipe = read_recipe("demo")
    training, model = recipe.training, recipe.model
    assert (model.backbone, model.image_size, model.fpn_channels) == ("botnet_tiny", 128, 64)
    assert (training.epochs, training.batch_size, training.optimizer) == (6, 16, "adamw")
    assert (training.learning_rate, training.weight_decay, training.ema_decay) == (
        0.002,
        0.05,
        0.98,
    )
    assert (recipe.data.scale_jitter, recipe.data.flip) == ((1.0, 1.0), 0.0)
