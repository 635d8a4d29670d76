"""Backbones: networks of one size, trained BoTNets at any, and inputs that no detector has."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from botvision.attention import MultiHeadSelfAttention2d
from botvision.detection import mask_rcnn
from botvision.tasks.detection.build import load_backbone_weights
from botvision.tasks.detection.detectors.backbone import DeepestMap, PyramidBackbone
from botvision.tasks.detection.detectors.rcnn import faster_rcnn
from botvision.weights.file import load_tensors

SMALL = {"fpn_channels": 8, "box_head_width": 8}


@pytest.mark.parametrize("name", ["botnet26t_256", "swin_tiny_patch4_window7_224"])
def test_networks_of_one_size_are_built_for_it(name):
    body = PyramidBackbone(name, image_size=64, channels=8)
    assert body(torch.zeros(2, 3, 64, 64))["p2"].shape == (2, 8, 16, 16)


@pytest.mark.parametrize("name", ["botnet26t_256", "swin_tiny_patch4_window7_224"])
def test_networks_of_one_size_take_images_of_any(name):
    torch.manual_seed(0)
    detector = faster_rcnn(name, 2, image_size=64, **SMALL).eval()
    with torch.no_grad():
        for size in ((64, 32), (20, 90)):
            assert len(detector([torch.rand(3, *size)])) == 1


@pytest.mark.parametrize("build", [PyramidBackbone, DeepestMap])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("halo2botnet50ts_256", "128, 256, 384, 512, 640, 768, 896, 1024"),
        ("halonet26t", "256, 512, 768, 1024"),
    ],
)
def test_a_size_that_a_network_does_not_take(build, name, sizes):
    expected = f"takes no images of 64 x 64 pixels; choose an image size of {sizes}, or another"
    with pytest.raises(ValueError, match=expected):
        build(name, image_size=64)


@pytest.mark.parametrize("name", ["halonet26t", "lambda_resnet26rpt_256"])
def test_attention_that_cannot_be_converted_gets_its_square(name):
    detector = faster_rcnn(name, 2, image_size=256, **SMALL).eval()
    with torch.no_grad():
        assert len(detector([torch.rand(3, 100, 150)])) == 1


@pytest.mark.parametrize("build", [PyramidBackbone, DeepestMap])
def test_images_have_three_channels(build):
    with pytest.raises(ValueError, match=r"in_chans: expected 3 \(RGB\), got 1"):
        build("botnet_tiny", image_size=64, arguments={"in_chans": 1})


def trained(name="botnet26t_256", **options):
    """A timm network with random weights that all count."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **options).eval()
    for key, parameter in network.named_parameters():
        if key.endswith(("height_rel", "width_rel")):
            torch.nn.init.normal_(parameter, std=0.3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    return network


@pytest.fixture
def save(tmp_path):
    def save(tensors, name="trained.safetensors"):
        path = tmp_path / name
        (save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)
        return path

    return save


@pytest.mark.parametrize("name", ["botnet26t_256", "eca_botnext26ts_256"])
def test_a_trained_botnet_becomes_a_backbone_of_any_size(name, save):
    theirs = trained(name)
    tensors = theirs.state_dict()
    detector = mask_rcnn(f"timm/{name}.c1_in1k", 3, image_size=256, **SMALL).eval()
    report = load_backbone_weights(detector, save(tensors))
    assert report.new == ()
    assert set(report.left_out) == {"head.fc.weight", "head.fc.bias"}
    features = timm.create_model(name, features_only=True, out_indices=(-4, -3, -2, -1)).eval()
    missing = features.load_state_dict(
        {
            key.replace("stages.", "stages_").replace("stem.", "stem_"): tensor
            for key, tensor in tensors.items()
            if "head" not in key
        }
    )
    assert not missing.missing_keys
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        expected, actual = features(x), detector.backbone.body(x)
        for ours, map_ in zip(actual, expected, strict=True):
            assert map_.std() > 0.05
            assert_close(ours, map_, rtol=1e-5, atol=1e-5)
        for height, width in ((320, 256), (250, 190), (33, 71)):
            levels = detector.backbone(torch.randn(1, 3, height, width))
            assert levels["p2"].shape[-2:] == (-(-height // 4), -(-width // 4))
        assert len(detector([torch.rand(3, 120, 200)])) == 1


def test_position_tables_of_weights_are_resized_to_the_image(save):
    theirs = trained()
    body = DeepestMap("botnet26t_256", image_size=128)
    before = body.body.stages_3[1].self_attn.attention.position.height.clone()
    load_backbone_weights(torch.nn.ModuleDict({"backbone": body}), save(theirs.state_dict()))
    attention = body.body.stages_3[1].self_attn.attention
    table = theirs.stages[3][1].self_attn.pos_embed.height_rel
    assert attention.position.height.shape == (7, table.shape[1]) == before.shape
    assert table.shape[0] == 15
    # Offset 0 stays; timm's tables are of queries that are not scaled.
    assert_close(attention.position.height[3], table[7] * table.shape[1] ** 0.5)


@pytest.mark.parametrize("wrap", ["", "module.", "backbone.body."])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_files_and_wrappers_of_other_networks(name, wrap, save):
    tensors = {wrap + key: tensor for key, tensor in trained().state_dict().items()}
    detector = faster_rcnn("botnet26t_256", 2, image_size=64, **SMALL)
    assert load_backbone_weights(detector, save(tensors, name)).new == ()


def test_trained_weights_of_timms_own_are_converted(save):
    # What pretrained=True loads, here from a file in place of the address.
    path = save(trained().state_dict(), "c1.pth")
    overlay = {"file": str(path), "num_classes": 5}
    arguments = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    body = DeepestMap("botnet26t_256.c1_in1k", image_size=128, arguments=arguments).eval()
    other = DeepestMap("botnet26t_256", image_size=128).eval()
    load_backbone_weights(torch.nn.ModuleDict({"backbone": other}), path)
    x = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        assert_close(body(x), other(x))
    assert body.body.stages_2[1].self_attn.attention.position.height.shape[0] == 15


def test_weights_with_timms_attention_load_by_every_way(save):
    theirs = trained()
    ours = DeepestMap("botnet26t_256", image_size=256).body
    features = timm.create_model("botnet26t_256", features_only=True, out_indices=(-1,))
    flat = {
        n.replace("stages.", "stages_").replace("stem.", "stem_"): t
        for n, t in theirs.state_dict().items()
        if "head" not in n
    }
    features.load_state_dict(flat)
    ours.load_state_dict(flat)
    expected = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    again = DeepestMap("botnet26t_256", image_size=256).body
    load_tensors(again, flat, "old.safetensors")
    assert all(torch.equal(t, expected[n]) for n, t in again.state_dict().items())
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        assert_close(ours.eval()(x)[0], features.eval()(x)[0], rtol=1e-5, atol=1e-5)


def test_another_network_is_refused(save):
    detector = faster_rcnn("botnet26t_256", 2, image_size=64, **SMALL)
    for other in ("eca_botnext26ts_256", "resnet26t"):
        path = save(timm.create_model(other, num_classes=0).state_dict())
        with pytest.raises(ValueError, match="weights of another model"):
            load_backbone_weights(detector, path)


@pytest.mark.parametrize("name", ["botnet26t_256", "timm/botnet26t_256.c1_in1k"])
def test_a_recipe_trains_a_trained_botnet(name, save, make_recipe, handwriting, tmp_path, display):
    from botvision import load
    from botvision.recipes.running import train_recipe

    path = save(trained().state_dict())
    recipe = make_recipe(
        f"model.backbone={name}",
        "model.image_size=128",
        f"model.backbone_weights={json.dumps(str(path))}",
        "model.batch_norm=frozen",
        "training.max_steps=1",
    )
    train_recipe(recipe, tmp_path / "run", display=display)
    notes = " ".join(display[-1].notes)
    assert f"backbone {name}: 3 attention layers of one map size converted, so that" in notes
    assert "BatchNorm frozen in 31 layers" in notes
    predictor = load(tmp_path / "run" / "best.safetensors")
    layers = [m for m in predictor.model.modules() if isinstance(m, MultiHeadSelfAttention2d)]
    assert len(layers) == 3
    predictor(handwriting / "images" / "val_000000.jpg")


def test_licenses_that_allow_no_commercial_use_are_named(monkeypatch, save):
    assert DeepestMap("convnextv2_atto.fcmae", image_size=64).notes == ()  # nothing is loaded
    theirs = timm.create_model("convnextv2_atto", num_classes=0)
    monkeypatch.setattr("botvision.weights.checkpoints._from_timm", lambda _: theirs.state_dict())
    detector = faster_rcnn("convnextv2_atto", 2, image_size=64, **SMALL)
    report = load_backbone_weights(detector, "timm/convnextv2_atto.fcmae")
    assert str(report).endswith("; license cc-by-nc-4.0, which allows no commercial use")
    theirs = timm.create_model("resnet18", num_classes=0)
    detector = faster_rcnn("resnet18", 2, image_size=64, **SMALL)
    assert "license" not in str(load_backbone_weights(detector, "resnet18.a1_in1k"))
