"""Weights files: what was written is read, and nothing else is taken for it."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import botvision
from botvision.errors import BotvisionError
from botvision.weights.file import (
    FORMAT,
    has_description,
    load_tensors,
    read_description,
    read_tensors,
    save_weights,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def tiny(**options):
    return botvision.create_model("botnet_tiny", **{"num_classes": 5, "img_size": 64, **options})


@pytest.mark.parametrize("channels_last", [False, True])
def test_round_trip(path, channels_last, describe):
    model = tiny()
    model.train()(torch.rand(2, 3, 64, 64))  # statistics that are not those of a new model
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    description = describe(["ä", "b"], metrics={"top1": 0.5}, recipe={"n": [1, 2.5, None]})
    save_weights(path, model, description)
    assert read_description(path) == description
    other = tiny()
    load_tensors(other, read_tensors(path), path)
    state = model.state_dict()
    assert other.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())
    assert other.state_dict()["bn1.num_batches_tracked"] == 1


def test_the_file_is_an_ordinary_safetensors_file(path):
    model = tiny()
    save_weights(path, model)
    assert load_file(path).keys() == model.state_dict().keys()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_reading_under_a_prefix(path):
    save_weights(path, nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}))
    assert set(read_tensors(path, "a.")) == {"weight", "bias"}
    assert set(read_tensors(path)) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    assert read_tensors(path, "c.") == {}


def test_position_tables_are_resized(path):
    model = tiny(img_size=128)
    save_weights(path, model)
    other = tiny(img_size=64)
    load_tensors(other, read_tensors(path), path)
    ours, theirs = other.state_dict(), model.state_dict()
    resized = [key for key in ours if ours[key].shape != theirs[key].shape]
    assert resized
    assert all("position" in key for key in resized)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key not in resized)
    # And they are the tables that were saved, not those of a new model.
    for key in resized:
        assert ours[key].mean() == pytest.approx(float(theirs[key].mean()), abs=0.05)
        assert torch.allclose(ours[key][len(ours[key]) // 2], theirs[key][len(theirs[key]) // 2])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"num_classes": 7}, ["fc.", "[5", "[7"]),
        ({"position": "none"}, ["missing", "unknown", "position"]),
        ({"layers": (2, 2, 2, 3)}, ["missing", "layer4.2"]),
        ({"channels": (16, 32, 64, 128)}, ["size mismatch", "1024", "512"]),
    ],
    ids=["classes", "position", "depth", "width"],
)
def test_another_models_tensors(other, expected, path):
    save_weights(path, tiny(**(other if "num_classes" in other else {})))
    model = tiny(**({} if "num_classes" in other else other))
    with pytest.raises(BotvisionError, match="weights of another model") as raised:
        load_tensors(model, read_tensors(path), path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_missing_and_unknown_are_counted(path):
    model = nn.PReLU()
    tensors = {"a": torch.zeros(1), "b": torch.zeros(1)}
    with pytest.raises(BotvisionError, match="1 tensors missing, 2 unknown, 'weight' among them"):
        load_tensors(model, tensors, path)


@pytest.mark.parametrize("read", [read_description, read_tensors])
def test_missing_file(read, path):
    with pytest.raises(BotvisionError, match=r"weights\.safetensors: no such weights file"):
        read(path)


@pytest.mark.parametrize("read", [read_description, read_tensors])
@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "header", "pickle", "folder"])
def test_file_that_is_none_of_ours(kind, read, path, describe):
    model = nn.Linear(20, 20)
    save_weights(path, model, describe())
    content = path.read_bytes()
    if kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {
                "text": b"these are no weights, whatever the name says",
                "empty": b"",
                "truncated": content[:-10],
                "header": content[:20],
                "pickle": pickle.dumps(model.state_dict()),
            }[kind]
        )
    with pytest.raises(BotvisionError, match="expected a safetensors file") as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_without_our_description(metadata, path):
    save_file(nn.Linear(2, 1).state_dict(), path, metadata=metadata)
    with pytest.raises(BotvisionError, match="without their description"):
        read_description(path)
    assert set(read_tensors(path)) == {"weight", "bias"}


def write(path, content):
    """Write a file with any description."""
    text = content if isinstance(content, str) else json.dumps(content)
    save_file(nn.Linear(2, 1).state_dict(), path, metadata={"botvision": text})


@pytest.mark.parametrize("text", ["{", "not JSON", "[" * 10**5])
def test_description_that_is_not_json(text, path):
    write(path, text)
    with pytest.raises(BotvisionError, match=r"weights\.safetensors: the description is not JSON"):
        read_description(path)


def test_what_is_written(path, describe):
    save_weights(path, nn.Linear(2, 1), describe())
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["botvision"])
    assert list(content) == [
        *("format", "task", "model", "classes", "input"),
        *("metrics", "made_by", "recipe"),
    ]
    assert content["format"] == FORMAT == 1


def test_unknown_keys_are_ignored(path, describe):
    content = describe().model_dump(mode="json")
    content["license"] = "MIT"
    content["input"]["padding"] = "reflect"
    content["classes"][0]["color"] = [255, 0, 0]
    write(path, content)
    assert read_description(path) == describe()


def test_what_only_informs_may_be_missing_and_anything(path, describe):
    content = describe().model_dump(mode="json")
    for key in ("metrics", "made_by", "recipe"):
        del content[key]
    write(path, content)
    assert read_description(path) == describe()
    write(path, {**content, "recipe": {"training": "none", "data": [1]}})
    assert read_description(path).recipe == {"training": "none", "data": [1]}


NEEDED = [
    *("task", "model", "classes", "input", "classes.0.id", "classes.0.name"),
    *("input.size", "input.mean", "input.std", "input.interpolation", "input.crop"),
    *("input.precision", "input.memory_format"),
]


@pytest.mark.parametrize("key", NEEDED)
def test_a_missing_key_is_one_line_that_names_it(key, path, describe):
    content = describe().model_dump(mode="json")
    *parents, last = key.split(".")
    group = content
    for parent in parents:
        group = group[int(parent) if parent.isdigit() else parent]
    del group[last]
    write(path, content)
    with pytest.raises(BotvisionError, match=rf"description: {key}: Field required$") as raised:
        read_description(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"input": {"size": "large"}}, r"input\.size: .*got 'large'"),
        ({"input": {"precision": "float8"}}, r"input\.precision: .*got 'float8'"),
        ({"classes": "cat"}, r"classes: .*got 'cat'"),
        ({"model": []}, r"model: .*got \[\]"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(changes, expected, path, describe):
    content = describe().model_dump(mode="json")
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    write(path, content)
    with pytest.raises(BotvisionError, match=expected) as raised:
        read_description(path)
    assert "\n" not in str(raised.value)


def test_a_later_format_asks_for_a_later_version(path, describe):
    content = {"format": 2, **{k: v for k, v in describe().model_dump().items() if k != "format"}}
    write(path, json.loads(json.dumps(content)))
    with pytest.raises(BotvisionError, match=r"format 1 or earlier, got 2; update botvision$"):
        read_description(path)


@pytest.mark.parametrize("content", [None, 3, [], "text", {"format": "1"}, {"format": -1}])
def test_a_description_without_a_format_number(content, path):
    write(path, json.dumps(content))
    with pytest.raises(BotvisionError, match="expected a description with a format number"):
        read_description(path)


def test_whether_a_file_is_described(path, describe):
    assert not has_description(path)
    save_weights(path, nn.Linear(2, 1))
    assert not has_description(path)
    save_weights(path, nn.Linear(2, 1), describe())
    assert has_description(path)
    path.write_text("text")
    assert not has_description(path)


def test_failure_while_saving_leaves_the_old_file(path, monkeypatch, describe):
    save_weights(path, nn.Linear(2, 1), describe())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="serialize"):
        save_weights(path, nn.Linear(2, 1), describe(recipe={"version": object()}))

    def full(tensors, temporary, metadata):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("botvision.weights.file.save_file", full)
    with pytest.raises(BotvisionError, match=r"weights\.safetensors: .*No space left"):
        save_weights(path, nn.Linear(2, 1), describe(["other"]))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert read_description(path) == describe()
