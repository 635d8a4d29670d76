"""What the commands print, and what they cost before they work."""

import json
import re
import subprocess
import sys

import pytest
import typer

from botvision.cli import app
from botvision.recipes.reading import recipe_names


def command_names(command=None, *names):
    """The names of all commands, those of groups before their own."""
    command = command or typer.main.get_command(app)
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        return [" ".join(names)]
    found = (command_names(each, *names, name) for name, each in subcommands.items())
    return [name for some in found for name in some]


COMMANDS = command_names()
assert {"repeat", "data shard", "benchmark training"} < set(COMMANDS)


def plain(text):
    """Without the frames, colors and line breaks of the terminal."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name, cli):
    status, out, error = cli(*name.split(), "--help")
    assert (status, error) == (0, "")
    assert f"Example: botvision {name}" in plain(out)


@pytest.mark.parametrize("group", ["", "data", "benchmark"])
def test_help_lists_every_command(group, cli):
    status, out, error = cli(*group.split(), "--help")
    assert (status, error) == (0, "")
    names = [name.removeprefix(group).split()[0] for name in COMMANDS if name.startswith(group)]
    assert len(names) >= 3
    assert set(names) <= set(plain(out).split())


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict", "--help"]])
def test_help_is_cheap(arguments):
    program = (
        "import sys\nfrom botvision.cli import main\n"
        f"sys.argv = ['botvision', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('LOADED', *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.decode().rpartition("LOADED")[2].split()
    assert "botvision.cli.train" in loaded
    heavy = {"torch", "timm", "torchvision", "numpy", "matplotlib", "sklearn"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["trian"], "train"),
        (["train", "--dat", "x"], "--data"),
        (["val", "--splt", "x"], "--split"),
    ],
)
def test_misspelt_command_or_option(arguments, near, cli):
    status, out, error = cli(*arguments)
    assert status == 2
    assert out == ""
    assert near in plain(error)
    assert "Traceback" not in error


def test_data_handwriting(cli, tmp_path):
    folder = tmp_path / "digits"
    status, out, _ = cli(
        "data", "handwriting", folder, "--train", 2, "--val", 1, "--size", 64, "--seed", 4
    )
    assert status == 0
    assert "2 training and 1 validation scenes" in plain(out)
    assert len(list((folder / "images").iterdir())) == 3


def test_train_list(cli):
    status, out, error = cli("train", "--list")
    assert (status, error) == (0, "")
    assert all(name in out for name in recipe_names())
    assert json.loads(cli("train", "--list", "--json")[1])


def test_train_json_is_alone_on_stdout(cli, tiny, handwriting, trained_run, tmp_path):
    overrides = [part for each in tiny for part in ("--set", each)]
    arguments = ["train", "demo", "--data", handwriting, "--runs", tmp_path, *overrides]
    status, out, error = cli(*arguments, "--json", "--set", "training.epochs=1")
    assert status == 0, error
    content = json.loads(out)
    run = tmp_path / "instance_segmentation" / "demo"
    assert content["run"] == str(run)
    assert content["metrics"]["box_ap"] == 0
    assert "images/s" in error  # the bar
    # The same once more does not touch the first run but makes a second.
    status, out, _ = cli(*arguments, "--set", "training.epochs=1")
    assert status == 0
    assert "Everything is in" in plain(out)
    assert run.with_name("demo-2").is_dir()
    status, out, _ = cli("train", "--resume", run, "--json")
    assert status == 0
    assert json.loads(out)["run"] == str(run)


def test_val(cli, trained_run):
    status, out, _ = cli("val", trained_run.last, "--json")
    assert status == 0
    metrics = json.loads(out)
    expected = trained_run.history()[-1]["metrics"]
    assert {name: metrics[name] for name in expected} == expected
    status, out, _ = cli("val", trained_run.last)
    assert status == 0
    assert "ap of 3" in plain(out)


def test_predict(cli, trained_run, val_image, tmp_path):
    arguments = ["predict", val_image, "--weights", trained_run.last, "--threshold", 0]
    status, out, _ = cli(*arguments, "--output", tmp_path / "out", "--json")
    assert status == 0
    content = json.loads(out)
    assert content == json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(content["annotations"]) == 10
    status, out, _ = cli(*arguments, "--output", tmp_path / "again")
    assert "10 instances in 1 images" in plain(out)


def test_attention_map(cli, trained_run, val_image, tmp_path):
    status, out, _ = cli(
        *("attention-map", val_image, "--at", "10,20", "--weights", trained_run.last),
        *("--output", tmp_path / "map.png"),
    )
    assert status == 0
    assert "pixel 10,20" in out
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_attention_map_of_an_instance(cli, trained_run, val_image, tmp_path):
    weights = ("--weights", trained_run.last, "--threshold", 0)
    _, out, _ = cli("predict", val_image, *weights, "--output", tmp_path / "out", "--json")
    content = json.loads(out)
    names = {each["id"]: each["name"] for each in content["categories"]}
    record = content["annotations"][3]
    status, out, _ = cli(
        *("attention-map", val_image, "--instance", 3, *weights),
        *("--output", tmp_path / "map.png"),
    )
    assert status == 0
    assert f"instance 3, {names[record['category_id']]} {record['score']:.2f}, is in" in plain(out)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_whole_command_in_a_process_of_its_own(command, tmp_path):
    done = command("val", "nowhere.safetensors", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: nowhere.safetensors: no such weights file\n"
    assert list(tmp_path.iterdir()) == []
