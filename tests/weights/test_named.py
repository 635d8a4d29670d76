"""Networks of a repository on the Hub: config.json alone is fetched until weights are asked for."""

import json

import huggingface_hub
import pytest
import timm
import torch

import botvision
from botvision.errors import BotvisionError
from botvision.tasks.classification.build import build_classifier, registered
from botvision.tasks.classification.settings import ClassifierSettings
from botvision.tasks.detection.build import load_backbone_weights
from botvision.tasks.detection.build import registered as registered_detector
from botvision.tasks.detection.detectors.backbone import DeepestMap
from botvision.tasks.detection.settings import RcnnSettings
from botvision.tasks.publish import save_pretrained
from botvision.weights.named import named_network

ADDRESS = "hf-hub:owner/name"


class FakeHub:
    """A folder in place of the only repository of the Hub."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.fetched = folder, []
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: self)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def list_repo_files(self, name, revision):
        return [path.name for path in self.folder.iterdir()]

    def download(self, name, file, revision):
        self.fetched.append((name, file, revision))
        return str(self.folder / file)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return botvision.create_model("botnet_tiny", num_classes=3, img_size=96, act_layer="silu")


@pytest.fixture
def hub(network, tmp_path, monkeypatch):
    save_pretrained(network, tmp_path / "repository", preprocessing={"mean": (0.4, 0.5, 0.6)})
    return FakeHub(tmp_path / "repository", monkeypatch)


def test_names_of_the_registry_fetch_nothing(hub):
    found = named_network("timm/resnet50.a1_in1k")
    assert (found.name, found.architecture, found.arguments) == ("resnet50.a1_in1k", "resnet50", {})
    assert found.weights is None
    assert named_network("hf-hub:timm/botnet26t_256.c1_in1k").name == "botnet26t_256.c1_in1k"
    assert hub.fetched == []


def test_a_backbone_of_the_hub(hub, network):
    body = DeepestMap(f"{ADDRESS}@v1", image_size=64)
    assert hub.fetched == [("owner/name", "config.json", "v1")]
    assert body.mean == (0.4, 0.5, 0.6)
    tables = body.body.layer4[0].conv2.attention.position
    assert tables.height.shape[0] == 7  # of this image size
    body = DeepestMap(ADDRESS, image_size=64, arguments={"pretrained": True})
    assert ("owner/name", "model.safetensors", None) in hub.fetched
    assert torch.equal(body.body.layer1[0].conv1.weight, network.layer1[0].conv1.weight)


def test_weights_of_the_hub(hub, network):
    body = DeepestMap("botnet_tiny", image_size=64, arguments={"act_layer": "silu"})
    report = load_backbone_weights(torch.nn.ModuleDict({"backbone": body}), ADDRESS)
    assert report.new == ()
    assert torch.equal(body.body.layer3[1].bn2.weight, network.layer3[1].bn2.weight)


def test_weights_files_do_not_need_the_hub(hub):
    found = registered_detector(RcnnSettings(backbone=ADDRESS, backbone_arguments={"a": 1}))
    assert (found.backbone, found.backbone_arguments) == (
        "botnet_tiny",
        {"act_layer": "silu", "a": 1},
    )
    found = registered(ClassifierSettings(classifier=ADDRESS))
    assert (found.classifier, found.classifier_arguments) == ("botnet_tiny", {"act_layer": "silu"})
    plain = ClassifierSettings(classifier="timm/resnet18.a1_in1k")
    assert registered(plain).classifier == "resnet18.a1_in1k"


def test_a_classifier_of_the_hub(hub, network):
    model = build_classifier(ClassifierSettings(classifier=ADDRESS, image_size=64), 2)
    assert model.num_classes == 2
    assert model.pretrained_cfg["mean"] == (0.4, 0.5, 0.6)
    assert hub.fetched == [("owner/name", "config.json", None)]
    settings = ClassifierSettings(
        classifier=ADDRESS, image_size=64, classifier_arguments={"pretrained": True}
    )
    model = build_classifier(settings, 2)
    assert torch.equal(model.layer1[0].conv1.weight, network.layer1[0].conv1.weight)


def test_a_classifier_by_its_address_at_timm():
    model = build_classifier(ClassifierSettings(classifier="timm/resnet18.a1_in1k"), 2)
    assert model.pretrained_cfg["tag"] == "a1_in1k"


def test_a_botified_network_of_the_hub(tmp_path, monkeypatch):
    resnet = timm.create_model("resnet26", num_classes=3, channels=(16, 32, 64, 128))
    save_pretrained(botvision.botify(resnet, num_heads=8), tmp_path)
    FakeHub(tmp_path, monkeypatch)
    settings = registered(ClassifierSettings(classifier=ADDRESS))
    assert settings.classifier == "resnet26"
    assert settings.botify["num_heads"] == 8
    model = build_classifier(ClassifierSettings(classifier=ADDRESS, image_size=64), 3)
    assert model.layer4[0].conv2.attention.num_heads == 8
    with pytest.raises(BotvisionError, match="got one that botify made; give the name of its"):
        DeepestMap(ADDRESS, image_size=64)


@pytest.mark.parametrize(
    ("license_name", "expected"), [("cc-by-nc-4.0", "cc-by-nc-4.0"), ("mit", None), (None, None)]
)
def test_the_license_that_a_repository_states(license_name, expected, hub):
    path = hub.folder / "config.json"
    content = json.loads(path.read_text())
    content["pretrained_cfg"]["license"] = license_name
    path.write_text(json.dumps(content))
    body = DeepestMap(ADDRESS, image_size=64, arguments={"pretrained": True})
    assert [("license cc-by-nc-4.0" in note) for note in body.notes] == [True] * bool(expected)


def test_a_repository_that_cannot_be_read(hub):
    (hub.folder / "config.json").write_text("{")
    for build in (lambda: DeepestMap(ADDRESS, image_size=64), lambda: named_network(ADDRESS)):
        with pytest.raises(BotvisionError, match="expected JSON") as raised:
            build()
        assert "\n" not in str(raised.value)
