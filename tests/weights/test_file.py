"""Weights files: what was written is read, and nothing else is taken for it."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import botvision
from botvision.errors import BotvisionError
from botvision.weights.file import load_tensors, read_description, read_tensors, save_weights


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def tiny(**options):
    return botvision.create_model("botnet_tiny", **{"num_classes": 5, "img_size": 64, **options})


@pytest.mark.parametrize("channels_last", [False, True])
def test_round_trip(path, channels_last):
    model = tiny()
    model.train()(torch.rand(2, 3, 64, 64))  # statistics that are not those of a new model
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    description = {"model": {"name": "botnet_tiny"}, "classes": ["ä", "b"], "n": [1, 2.5, None]}
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
    save_weights(path, model, {})
    assert load_file(path).keys() == model.state_dict().keys()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_reading_under_a_prefix(path):
    save_weights(path, nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}), {})
    assert set(read_tensors(path, "a.")) == {"weight", "bias"}
    assert set(read_tensors(path)) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    assert read_tensors(path, "c.") == {}


def test_position_tables_are_resized(path):
    model = tiny(img_size=128)
    save_weights(path, model, {})
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
    save_weights(path, tiny(**(other if "num_classes" in other else {})), {})
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
def test_file_that_is_none_of_ours(kind, read, path):
    model = nn.Linear(20, 20)
    save_weights(path, model, {"a": 1})
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


@pytest.mark.parametrize("text", ["{", "not JSON"])
def test_description_that_is_not_json(text, path):
    save_file(nn.Linear(2, 1).state_dict(), path, metadata={"botvision": text})
    with pytest.raises(BotvisionError, match=r"weights\.safetensors"):
        read_description(path)


def test_failure_while_saving_leaves_the_old_file(path, monkeypatch):
    save_weights(path, nn.Linear(2, 1), {"version": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_weights(path, nn.Linear(2, 1), {"version": object()})

    def full(tensors, temporary, metadata):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("botvision.weights.file.save_file", full)
    with pytest.raises(BotvisionError, match=r"weights\.safetensors: .*No space left"):
        save_weights(path, nn.Linear(2, 1), {"version": 2})
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert json.loads(json.dumps(read_description(path))) == {"version": 1}
