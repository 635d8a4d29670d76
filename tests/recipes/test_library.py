"""Each recipe says what it is for and how it is run, and each value where it comes from."""

import re
from importlib import resources
from pathlib import Path

import pytest
import typer.main
import yaml

from botvision.cli import app
from botvision.recipes.composition import recipe_names
from botvision.recipes.reading import read_recipe

ROOT = Path(__file__).parents[2]
LIBRARY = Path(str(resources.files("botvision.recipes"))) / "library"
FILES = sorted(LIBRARY.rglob("*.yaml"))
CIFAR = [f"small_cifar_{network}" for network in ("resnet", "botnet", "botnet_s1")]
# Trained to the end, and the page that reports it.
TRAINED = {
    "demo": "README.md",
    "finetune_cpu": "docs/finetuning.md",
    **dict.fromkeys(CIFAR, "docs/classification.md"),
}
ORIGINS = {
    "P": "the paper",
    "T": "the TPU detection code",
    "V": "torchvision",
    "C": "DETR's authors (Carion et al. 2020)",
    "R": "ResNet-RS (Bello et al. 2021)",
    "O": "our choice",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "pieces":
        assert not {"name", "about"} & content.keys()
        return
    assert content["name"] == path.stem
    # Written out in each file, for whoever opens it.
    assert list(content)[: 3 if "base" in content else 2][-2:] == ["name", "about"]
    assert {"title", "command", "hardware", "time", "measured"} <= content["about"].keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_of_a_file_says_where_it_comes_from(path):
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
    legend = re.findall(r"^# Where values come from: (.*)\.$", text, re.MULTILINE)
    expected = [f"{letter} {origin}" for letter, origin in ORIGINS.items() if letter in used]
    assert legend == [", ".join(expected)]


def test_every_recipe_says_what_it_is_for_and_how_it_is_run():
    train = typer.main.get_command(app).commands["train"]
    known = {option for parameter in train.params for option in parameter.opts}
    for name in recipe_names():
        about = read_recipe(name).about
        assert all((about.title, about.command, about.hardware, about.time)), name
        assert (about.measured == "not run yet") == (name not in TRAINED), name
        assert name in TRAINED or "estimated" in about.time, name
        words = about.command.split()
        if name == "demo":
            assert words == ["botvision", "demo"]
            continue
        if "torchrun" in words:
            assert words[:4] == ["torchrun", "--nproc-per-node", "8", "--no-python"], name
            words = words[4:]
        program, command, recipe, *options = words
        assert (program, command, recipe) == ("botvision", "train", name)
        assert "--data" in options, name
        assert set(options[::2]) <= known, name


@pytest.mark.parametrize("name", TRAINED)
def test_measured_figures_are_those_of_the_documentation(name):
    about = read_recipe(name).about
    figures = re.findall(r"0\.\d{3}", about.measured)
    assert len(figures) >= 2
    lines = (ROOT / TRAINED[name]).read_text(encoding="utf-8").splitlines()
    if name == "demo":  # one row has the figures and the time
        figures.append(re.search(r"\d+ s\b", about.time)[0])
        assert any(all(figure in line for figure in figures) for line in lines)
    text = "\n".join(lines)
    assert all(figure in text for figure in figures)


def test_the_documentation_names_every_recipe():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z0-9_.]+)`", text)
    assert not set(recipe_names()) - set(named)
    # The first column of its tables names nothing that is not there.
    rows = re.findall(r"^\| `([a-z0-9_.]+)`", text, re.MULTILINE)
    assert rows
    assert not set(rows) - {*recipe_names(), *(path.stem for path in FILES)}
