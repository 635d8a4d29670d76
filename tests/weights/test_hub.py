"""The Hub's layout: what is saved is loaded, by us and by timm, and nothing else leaves."""

import json
import pickle
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import botvision
from botvision.errors import BotvisionError
from botvision.tasks.publish import save_pretrained
from botvision.weights.file import read_description, read_tensors
from botvision.weights.hub import from_pretrained, pretrained_file, push_to_hub

LABELS = ["cat", "dog", "/m/01yrx"]  # a name that looks like a path


def tiny(**options):
    torch.manual_seed(0)
    options = {"num_classes": 3, "img_size": (64, 96), "act_layer": "silu", **options}
    model = botvision.create_model("botnet_tiny", **options)
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    return save_pretrained(tiny(), tmp_path / "tiny", labels=LABELS)


def test_a_network_comes_back(folder, tmp_path):
    model, x = tiny(), torch.randn(2, 3, 64, 96)
    loaded = from_pretrained(folder)
    assert not loaded.training
    assert torch.equal(loaded(x), model(x))
    assert loaded.pretrained_cfg["label_names"] == LABELS
    again = save_pretrained(loaded, tmp_path / "again", labels=LABELS)
    assert (again / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    ours, theirs = again / "model.safetensors", folder / "model.safetensors"
    assert read_description(ours) == read_description(theirs)
    tensors = read_tensors(theirs)
    assert all(torch.equal(value, tensors[name]) for name, value in read_tensors(ours).items())


def test_timm_reads_it(folder):
    model, x = tiny(), torch.randn(2, 3, 64, 96)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(loaded(x), model(x))
    data = timm.data.resolve_model_data_config(loaded)
    assert tuple(data["input_size"]) == (3, 64, 96)
    other = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7)
    assert torch.equal(other.conv1[0].weight, model.conv1[0].weight)


def test_what_is_written(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "botnet_tiny"
    assert config["num_classes"] == 3
    assert config["label_names"] == LABELS
    assert config["model_args"] == {"num_classes": 3, "img_size": [64, 96], "act_layer": "silu"}
    prepared = config["pretrained_cfg"]
    assert prepared["input_size"] == [3, 64, 96]
    assert prepared["mean"] == [0.485, 0.456, 0.406]
    assert prepared["std"] == [0.229, 0.224, 0.225]
    description = read_description(folder / "model.safetensors")
    assert description.model["classifier"] == "botnet_tiny"
    assert description.class_names == tuple(LABELS)


def test_a_head_that_was_reset_and_other_preprocessing(tmp_path):
    model = tiny()
    model.reset_classifier(2)
    save_pretrained(model, tmp_path, preprocessing={"mean": (0.5, 0.5, 0.5)})
    loaded = from_pretrained(tmp_path)
    assert loaded.num_classes == 2
    assert loaded.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x), model(x))


def test_other_channels(tmp_path):
    save_pretrained(tiny(in_chans=4), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"][0] == 4
    assert from_pretrained(tmp_path).conv1[0].in_channels == 4


def test_a_converted_resnet(tmp_path):
    model = timm.create_model("resnet26d", num_classes=3, channels=(16, 32, 64, 128)).eval()
    botvision.botify(model, stride_one=True, content=False, num_heads=8)
    save_pretrained(model, tmp_path)
    loaded = from_pretrained(tmp_path)
    assert loaded.layer4[0].conv2.attention.content is False
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x), model(x))
    with pytest.raises(RuntimeError, match="conv2"):  # timm cannot know, and says so
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)


def test_arguments_that_timm_did_not_record(tmp_path):
    model = tiny()
    arguments = model._model_args
    del model._model_args
    with pytest.raises(ValueError, match=r"arguments: expected those of create_model"):
        save_pretrained(model, tmp_path)
    with pytest.raises(ValueError, match=r"expected what create_model.*layer4\.0\.conv2"):
        save_pretrained(model, tmp_path, arguments={})
    assert not list(tmp_path.iterdir())
    save_pretrained(model, tmp_path, arguments=arguments)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(from_pretrained(tmp_path)(x), model(x))


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        (torch.nn.Linear(2, 2), {}, "expected a classifier .* got Linear"),
        (tiny(features_only=True, num_classes=None), {}, "got FeatureListNet"),
        (tiny(), {"labels": ["a"]}, "labels: expected 3, .* got 1"),
        (tiny(), {"preprocessing": {"meen": 1}}, "preprocessing: .* got 'meen'"),
        (tiny(), {"arguments": {"block_args": {"attn_layer": object}}}, "cannot be built"),
        (tiny(), {"arguments": {"nonsense": 1}}, "cannot be built.*nonsense"),
    ],
    ids=["layer", "features", "labels", "preprocessing", "no JSON", "unknown"],
)
def test_what_cannot_be_saved(model, options, expected, tmp_path):
    with pytest.raises(ValueError, match=expected) as raised:
        save_pretrained(model, tmp_path / "a", **options)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "a").exists()


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architecture": "botnet_tinny"}, "'botnet_tinny' is unknown; did you mean botnet_tiny"),
        ({"architecture": "hf-hub:someone/else"}, "is unknown"),
        ({"architecture": None}, "expected a field 'architecture'"),
        ({"model_args": {"checkpoint_path": "x.pth"}}, "got 'checkpoint_path', which would read"),
        ({"model_args": {"pretrained": True}}, "got 'pretrained'"),
        ({"model_args": {"nonsense": 1}}, "botnet_tiny: TypeError: .*nonsense"),
        ({"model_args": []}, "expected an object in model_args"),
        ({"pretrained_cfg": []}, "expected an object in pretrained_cfg"),
        ({"model_args": {"num_classes": 9}}, "size mismatch"),
        ({"botify": {}}, "attends already"),
    ],
)
def test_a_configuration_that_is_wrong(changes, expected, folder):
    edit(folder, **changes)
    with pytest.raises(BotvisionError, match=expected) as raised:
        from_pretrained(folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_configuration_cannot_have_weights_fetched(folder, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    edit(
        folder,
        pretrained_cfg={
            **config["pretrained_cfg"],
            "url": "http://x",
            "hf_hub_id": "a/b",
            "file": "c",
        },
    )
    loaded = from_pretrained(folder).pretrained_cfg
    assert not {"hf_hub_id", "file"} & {key for key, value in loaded.items() if value}
    assert loaded.get("url") in (None, "")


def test_nothing_is_unpickled(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        BotvisionError, match=r"expected model\.safetensors and config\.json, got no"
    ):
        from_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(1))
    with pytest.raises(
        BotvisionError, match=r"got pytorch_model\.bin, which would have to be"
    ) as e:
        from_pretrained(folder)
    assert "\n" not in str(e.value)
    (folder / "model.safetensors").write_bytes(pickle.dumps(1))
    with pytest.raises(BotvisionError, match="expected a safetensors file"):
        from_pretrained(folder)
    with pytest.raises(
        BotvisionError, match=r"no such folder; a repository .* 'hf-hub:owner/name'"
    ):
        from_pretrained(tmp_path / "owner" / "name")


class FakeHub:
    """What the Hub's client does of what we use, with a folder for the repository."""

    def __init__(self, repository, monkeypatch):
        self.repository, self.calls = repository, []
        monkeypatch.setattr(huggingface_hub, "HfApi", self.api)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def api(self, **options):
        self.calls.append(("api", options))
        return self

    def create_repo(self, name, **options):
        self.calls.append(("create_repo", name, options))
        return SimpleNamespace(repo_id=f"me/{name}")

    def upload_folder(self, *, folder_path, allow_patterns, **options):
        self.calls.append(("upload_folder", options))
        self.repository.mkdir()
        files = huggingface_hub.utils.filter_repo_objects(
            [path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*")],
            allow_patterns=allow_patterns,
        )
        for name in files:
            shutil.copy(folder_path / name, self.repository / name)
        return SimpleNamespace(commit_url="https://example.org/commit/1")

    def list_repo_files(self, name, revision):
        self.calls.append(("list", name, revision))
        return [path.name for path in self.repository.iterdir()]

    def download(self, name, file, revision):
        self.calls.append(("download", name, file, revision))
        return str(self.repository / file)


def test_there_and_back(folder, tmp_path, monkeypatch):
    hub = FakeHub(tmp_path / "repository", monkeypatch)
    for name in ("secret.txt", "notes.png", "optimizer.pt"):
        (folder / name).write_text("private")
    assert push_to_hub(folder, "name", token="hidden").endswith("/commit/1")
    assert hub.calls[0] == ("api", {"token": "hidden", "library_name": "botvision"})
    assert hub.calls[1] == ("create_repo", "name", {"private": True, "exist_ok": True})
    assert hub.calls[2][1]["repo_id"] == "me/name"
    uploaded = {path.name for path in hub.repository.iterdir()}
    assert uploaded == {"README.md", "config.json", "model.safetensors"}
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(from_pretrained("hf-hub:me/name@v1")(x), tiny()(x))
    assert ("list", "me/name", "v1") in hub.calls
    assert pretrained_file("hf-hub:me/name") == hub.repository / "model.safetensors"
    (hub.repository / "model.safetensors").rename(hub.repository / "model.pth")
    with pytest.raises(BotvisionError, match=r"^hf-hub:me/name: .* got model\.pth"):
        from_pretrained("hf-hub:me/name")


def test_a_link_or_a_folder_without_a_model_is_not_sent(folder, tmp_path, monkeypatch):
    hub = FakeHub(tmp_path / "repository", monkeypatch)
    (tmp_path / "secret").write_text("private")
    (folder / "results.png").symlink_to(tmp_path / "secret")
    with pytest.raises(BotvisionError, match=r"results\.png: expected a file, got a link"):
        push_to_hub(folder, "me/name")
    with pytest.raises(BotvisionError, match=r"got no model\.safetensors"):
        push_to_hub(tmp_path, "me/name")
    assert hub.calls == []
    with pytest.raises(BotvisionError, match="secret: expected a folder to write to"):
        save_pretrained(tiny(), tmp_path / "secret")


@pytest.mark.parametrize("name", ["a/b/c", "../up", "-"])
def test_names_that_the_hub_does_not_take(name, folder):
    with pytest.raises(BotvisionError, match=r"^hf-hub:.*HFValidationError") as raised:
        push_to_hub(folder, name)
    assert "\n" not in str(raised.value)
    with pytest.raises(BotvisionError, match=r"^hf-hub:.*HFValidationError"):
        from_pretrained(f"hf-hub:{name}")


def test_saving_over_a_link_leaves_what_it_points_to(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(outside)
    save_pretrained(tiny(), folder)
    assert outside.read_text() == "mine"
    assert not (folder / "README.md").is_symlink()


def test_timms_own_layout(tmp_path):
    # As timm's repositories have it: no description of ours in the weights.
    model = timm.create_model("test_resnet", num_classes=3).eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(from_pretrained(tmp_path)(x), model(x))
