"""Backbones from ResNets' checkpoints: what is taken, what is new, and what is refused."""

import os
import pickle

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

import botvision
from botvision.detection import faster_rcnn
from botvision.errors import BotvisionError
from botvision.tasks.detection.build import load_backbone_weights as load_detector_backbone
from botvision.weights.backbone import load_backbone_weights
from botvision.weights.checkpoints import read_checkpoint
from botvision.weights.file import save_weights

NARROW = {"channels": (16, 32, 64, 128), "num_classes": 5}


def ours(name="botnet26", **options):
    torch.manual_seed(1)
    return botvision.create_model(name, **{**NARROW, "img_size": 64, **options})


def resnet(name="resnet26", **options):
    torch.manual_seed(2)
    return timm.create_model(name, **{**NARROW, **options})


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def save(tmp_path):
    def save(tensors, name="resnet.pth"):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(tensors, path)
        else:
            torch.save(tensors, path)
        return path

    return save


def block(number):
    return f"layer4.{number}"


# Network, ResNet, modules that are new, modules of the ResNet that are left out.
ORIGINS = {
    "botnet": (ours, resnet, ["layer4.0.conv2", "layer4.1.conv2"]),
    "s1": (
        lambda: ours(output_stride=16),
        lambda: resnet(output_stride=16),
        ["layer4.0.conv2", "layer4.1.conv2"],
    ),
    "basic blocks": (
        lambda: ours("botnet18", num_classes=0),
        lambda: resnet("resnet18"),
        ["layer4.0", "layer4.1"],
    ),
    "longer c5 with SE before it": (
        lambda: ours(layers=(2, 2, 2, 4), block_args={"attn_layer": "se"}),
        lambda: resnet(block_args={"attn_layer": "se"}),
        ["layer4.0.conv2", "layer4.1.conv2", "layer4.2", "layer4.3"],
    ),
    "inserted blocks": (
        lambda: ours("resnet50_bot_c4c5", layers=(2, 2, 2, 2)),
        resnet,
        ["layer3.0_inserted", "layer4.0_inserted"],
    ),
    "non-local": (
        lambda: ours("resnet50_nl_c4", layers=(2, 2, 2, 2)),
        resnet,
        ["layer3.0_inserted"],
    ),
    "converted": (
        lambda: botvision.botify(resnet("resnet26d")),
        lambda: resnet("resnet26d"),
        ["layer4.0.conv2", "layer4.1.conv2"],
    ),
}


@pytest.mark.parametrize(("build", "build_resnet", "new"), ORIGINS.values(), ids=ORIGINS)
def test_all_but_what_the_paper_replaces_is_taken(build, build_resnet, new, save):
    network, source = build(), build_resnet()
    before, theirs = state(network), source.state_dict()
    path = save(theirs)
    report = load_backbone_weights(network, path)
    after = network.state_dict()
    assert set(report.taken) | set(report.new) == set(after)
    assert not set(report.taken) & set(report.new)
    assert {
        ".".join(name.split(".")[: len(place.split("."))])
        for name in report.new
        for place in new
        if name.startswith(f"{place}.")
    } == set(new)
    assert all(any(name.startswith(f"{place}.") for place in new) for name in report.new)
    assert all(torch.equal(after[name], theirs[name]) for name in report.taken)
    assert all(torch.equal(after[name], before[name]) for name in report.new)
    assert set(report.left_out) == set(theirs) - set(report.taken) - {
        name for name in theirs if name.endswith("num_batches_tracked")
    }
    line = str(report)
    assert "\n" not in line
    assert f"{path}: {len(report.taken)} of {len(after)} tensors taken" in line
    assert f"new: {', '.join(new)}" in line


def test_of_a_resnet50_of_torchvision_all_but_three_layers_are_taken(save):
    theirs = torchvision.models.resnet50().state_dict()
    network = botvision.create_model("botnet50")
    report = load_backbone_weights(network, save(theirs, "resnet50.pt"))
    assert len(report.taken) == len(theirs) - 3
    assert report.left_out == tuple(f"layer4.{number}.conv2.weight" for number in range(3))
    assert all(torch.equal(network.state_dict()[name], theirs[name]) for name in report.taken)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt", "a.bin", "a.pth.tar"])
@pytest.mark.parametrize("wrap", ["", "module.", "backbone.body."])
def test_files_and_wrappers(name, wrap, save):
    theirs = resnet().state_dict()
    tensors = {wrap + key: tensor for key, tensor in theirs.items()}
    content = tensors if name.endswith("safetensors") else {"state_dict": tensors, "epoch": 3}
    network = ours()
    report = load_backbone_weights(network, str(save(content, name)))
    assert torch.equal(
        network.state_dict()["layer3.1.conv2.weight"], theirs["layer3.1.conv2.weight"]
    )
    assert len(report.taken) == len(theirs) - 2


def test_old_checkpoints_count_no_batches_and_frozen_ones_need_none(save):
    theirs = resnet().state_dict()
    counters = [name for name in theirs if name.endswith("num_batches_tracked")]
    report = load_backbone_weights(
        ours(), save({k: v for k, v in theirs.items() if k not in counters})
    )
    assert not set(counters) & {*report.taken, *report.new}
    frozen = torchvision.ops.FrozenBatchNorm2d
    network = botvision.botify(torchvision.models.resnet18(num_classes=5, norm_layer=frozen))
    theirs = torchvision.models.resnet18(num_classes=5).state_dict()
    report = load_backbone_weights(network, save(theirs))
    assert report.left_out == ("layer4.0.conv2.weight", "layer4.1.conv2.weight")


def test_another_botnet_with_tables_of_another_size(save):
    source = ours(img_size=128)
    network = ours()
    report = load_backbone_weights(network, save(source.state_dict()))
    assert report.new == report.left_out == ()
    tables = network.layer4[0].conv2.attention.position
    assert tables.height.shape == (7, 32)
    theirs = source.layer4[0].conv2.attention
    assert torch.equal(tables.height[3], theirs.position.height[7])  # offset 0 stays
    assert torch.equal(network.layer4[0].conv2.attention.qkv.weight, theirs.qkv.weight)


def test_other_classes(save):
    path = save(resnet(num_classes=7).state_dict())
    network = ours()
    before = state(network)
    with pytest.raises(BotvisionError, match=r"fc\.weight: expected 5 classes, got 7; head=False"):
        load_backbone_weights(network, path)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    report = load_backbone_weights(network, path, head=False)
    assert {"fc.weight", "fc.bias"} <= set(report.new) & set(report.left_out)
    assert torch.equal(network.state_dict()["fc.weight"], before["fc.weight"])
    assert str(report).count("fc") == 2


WRONG = {
    "depth": (lambda: resnet(layers=(2, 2, 3, 2)), "15 unknown, 'layer3.2.conv1.weight'"),
    "shallow": (lambda: resnet(layers=(2, 2, 1, 2)), "15 tensors missing, 0 unknown"),
    "width": (lambda: resnet(base_width=128), r"expected shape \(16, 64, 1, 1\), got \(32,"),
    "SE": (lambda: resnet(block_args={"attn_layer": "se"}), "unknown, 'layer1.0.se"),
    "stem": (lambda: resnet(stem_type="deep"), r"bn1.weight: expected shape \(64,\), got \(128,\)"),
    "channels": (lambda: resnet(in_chans=1), r"conv1.weight: expected .* got \(64, 1, 7, 7\)"),
    "basic": (lambda: resnet("resnet18"), "weights of another model"),
    "no resnet": (lambda: timm.create_model("test_vit"), "got 0 such tensors"),
    "heads": (lambda: ours(num_heads=2), r"expected shape \(7, 32\), got \(7, 64\)"),
    "inserted": (lambda: ours("resnet50_bot_c4", layers=(2, 2, 2, 2)), "unknown, 'layer3.0_ins"),
}


@pytest.mark.parametrize(("build", "expected"), WRONG.values(), ids=WRONG)
def test_another_network_is_refused_and_nothing_changes(build, expected, save):
    network = ours()
    before = state(network)
    path = save(build().state_dict())
    with pytest.raises(BotvisionError, match=expected) as raised:
        load_backbone_weights(network, path)
    assert str(raised.value).startswith(f"{path}: weights of another model")
    assert "\n" not in str(raised.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Malice:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (pickle.dumps(Malice()), "nothing else is unpickled"),
        (b"", "expected a file that torch saved"),
        (b"no weights at all", "expected a file that torch saved"),
        (None, "no such weights file"),
    ],
    ids=["malice", "empty", "text", "missing"],
)
def test_files_that_hold_no_tensors(content, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BotvisionError, match=expected) as raised:
        load_backbone_weights(ours(), path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{}, [torch.zeros(1)], {"a": 1}, {1: torch.zeros(1)}], ids=str)
def test_files_of_something_else(content, save):
    with pytest.raises(BotvisionError, match="expected tensors by name, got"):
        read_checkpoint(save(content))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("resnet5O", "expected a file .* got 'resnet5O'; did you mean resnet50"),
        ("weights.npz", "expected a file"),
        ("torchvision:ResNet50_Weights.NONE", "the name of weights of torchvision"),
        ("torchvision:os.system", "the name of weights of torchvision"),
    ],
)
def test_unknown_sources(source, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        load_backbone_weights(ours(), source)
    detector = faster_rcnn("botnet_tiny", 3, image_size=64, fpn_channels=8, box_head_width=8)
    with pytest.raises(BotvisionError, match=f"^model.backbone_weights: {str(raised.value)[:20]}"):
        load_detector_backbone(detector, source)


def test_names_of_trained_networks(monkeypatch):
    # The network is asked for by name alone, and what comes back is what is loaded.
    asked = []
    theirs = resnet()

    def fetch(name, pretrained):
        asked.append((name, pretrained))
        return theirs

    network = ours()
    with monkeypatch.context() as patch:
        patch.setattr("botvision.weights.checkpoints.timm.create_model", fetch)
        load_backbone_weights(network, "resnet26.bt_in1k")
    assert asked == [("resnet26.bt_in1k", True)]
    weights = torchvision.models.ResNet50_Weights
    monkeypatch.setattr(
        weights, "get_state_dict", lambda self, **_: asked.append(self) or theirs.state_dict()
    )
    load_backbone_weights(network, "torchvision:ResNet50_Weights.IMAGENET1K_V2")
    assert asked[1] is weights.IMAGENET1K_V2
    assert torch.equal(network.state_dict()["conv1.weight"], theirs.state_dict()["conv1.weight"])


def test_weights_that_cannot_be_fetched(monkeypatch):
    def fail(name, pretrained):
        raise OSError("no\nnetwork")

    network = ours()
    monkeypatch.setattr("botvision.weights.checkpoints.timm.create_model", fail)
    with pytest.raises(BotvisionError, match=r"^resnet50: the weights .*\(no network\)$"):
        load_backbone_weights(network, "resnet50")


def test_a_detectors_backbone_from_a_plain_resnet(save, tmp_path):
    narrow = {"image_size": 64, "fpn_channels": 8, "box_head_width": 8}
    arguments = {"channels": NARROW["channels"]}
    detector = faster_rcnn("botnet26", 3, backbone_arguments=arguments, **narrow)
    theirs = resnet()
    report = load_detector_backbone(detector, save(theirs.state_dict()))
    body = detector.get_submodule("backbone.body").state_dict()
    assert torch.equal(body["layer4.1.conv3.weight"], theirs.state_dict()["layer4.1.conv3.weight"])
    assert all(".conv2.attention." in name for name in report.new)
    # And back: a classifier from a detector, its head new.
    save_weights(tmp_path / "detector.safetensors", detector)
    report = load_backbone_weights(ours(), tmp_path / "detector.safetensors")
    assert report.new == ("fc.weight", "fc.bias")
