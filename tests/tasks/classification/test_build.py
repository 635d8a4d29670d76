"""Classifiers as the settings say, and the backbones that they start from."""

import pytest
import torch

from botvision import create_model
from botvision.errors import BotvisionError
from botvision.tasks.classification.build import build_classifier, load_classifier_backbone
from botvision.tasks.classification.settings import ClassifierSettings
from botvision.weights.file import save_weights

TINY = {"stem_type": "deep", "stem_width": 4, "channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}


def build(classes=7, **settings):
    return build_classifier(ClassifierSettings(**{"image_size": 32, **settings}), classes)


def maps(model, side):
    """Side of the map behind each stage, and of each attention's input and position tables."""
    sides, attended = [], []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda _m, _i, output: sides.append(output.shape[-1]))
    for name, module in model.named_modules():
        if name.endswith("attention"):
            tables = {tuple(table.shape) for table in module.parameters() if table.ndim == 2}
            module.register_forward_hook(
                lambda _m, inputs, _o, tables=tables: attended.append(
                    (inputs[0].shape[-1], {length for length, _ in tables})
                )
            )
    with torch.no_grad():
        assert model.eval()(torch.rand(2, 3, side, side)).shape == (2, 7)
    return sides, attended


@pytest.mark.parametrize("name", ["botnet26", "botnet_tiny", "botnet26_s1"])
@pytest.mark.parametrize("side", [32, 48])
def test_the_cifar_stem_keeps_the_resolution_and_fits_the_tables(name, side):
    arguments = {}
    if name == "botnet26_s1":
        name, arguments = "botnet26", {"output_stride": 16}
    model = build(classifier=name, classifier_arguments=arguments, stem="cifar", image_size=side)
    sides, attended = maps(model, side)
    last = side // 4 if arguments else side // 8
    assert sides == [side, side // 2, side // 4, last]
    # The first block attends before it pools.
    assert [size for size, _ in attended] == [side // 4, last]
    for size, tables in attended:
        assert tables == {2 * size - 1}  # nothing is interpolated
    reductions = [level["reduction"] for level in model.feature_info]
    assert reductions == [1, 1, 2, 4, 4 if arguments else 8]


def test_the_imagenet_stem_is_timms():
    model = build(classifier="botnet26", image_size=64)
    sides, attended = maps(model, 64)
    assert sides == [16, 8, 4, 2]
    assert attended == [(4, {7}), (2, {3})]


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "botnet26"])
def test_the_cifar_stem_is_drawn_as_the_rest(name):
    stem = build(classifier=name, stem="cifar").conv1
    assert stem.weight.shape == (64, 3, 3, 3)
    assert stem.stride == (1, 1)
    assert float(stem.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


def test_regularization_reaches_the_network():
    model = build(classifier="botnet26", dropout=0.3, drop_path=0.2)
    assert model.drop_rate == 0.3
    rates = [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.2)


def test_networks_of_a_fixed_size_are_made_for_the_image():
    arguments = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    model = build(classifier="vit_tiny_patch16_224", image_size=48, classifier_arguments=arguments)
    assert model(torch.rand(1, 3, 48, 48)).shape == (1, 7)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"classifier": "botnet5"}, "'botnet5' is unknown.*did you mean"),
        ({"classifier": "botnet26", "classifier_arguments": {"width": 3}}, "botnet26: .*width"),
        ({"classifier": "botnet26", "classifier_arguments": {"num_classes": 3}}, "num_classes"),
        ({"classifier": "efficientnet_b0", "stem": "cifar"}, "model.stem: 'cifar' is for ResNets"),
    ],
)
def test_what_cannot_be_built_is_one_line(settings, expected):
    with pytest.raises(BotvisionError, match=expected) as caught:
        build(**settings)
    assert "\n" not in str(caught.value)


@pytest.fixture
def trained(describe, tmp_path):
    model = build(classes=3, classifier="botnet26", classifier_arguments=TINY)
    path = tmp_path / "best.safetensors"
    save_weights(path, model, describe(["ant", "bee", "cat"]))
    return model.state_dict(), path


@pytest.mark.parametrize("side", [32, 64])
def test_the_same_classes_keep_their_head(trained, side):
    tensors, path = trained
    model = build(3, classifier="botnet26", classifier_arguments=TINY, image_size=side)
    report = load_classifier_backbone(model, path, ["ant", "bee", "cat"])
    assert report.new == ()
    assert torch.equal(model.fc.weight, tensors["fc.weight"])
    assert torch.equal(model.conv1[0].weight, tensors["conv1.0.weight"])


@pytest.mark.parametrize("classes", [["bee", "ant", "cat"], ["ant", "bee"]])
def test_other_classes_get_a_new_head(trained, classes):
    tensors, path = trained
    model = build(len(classes), classifier="botnet26", classifier_arguments=TINY)
    before = model.fc.weight.clone()
    report = load_classifier_backbone(model, path, classes)
    assert set(report.new) == {"fc.weight", "fc.bias"}
    assert torch.equal(model.fc.weight, before)
    assert torch.equal(model.layer3[0].conv1.weight, tensors["layer3.0.conv1.weight"])


def test_backbones_that_cannot_be_used(trained, tmp_path):
    model = build(3, classifier="botnet26", classifier_arguments=TINY, stem="cifar")
    for source, expected in [
        (trained[1], "weights of another model"),
        (tmp_path / "none.safetensors", "no such weights file"),
        ("resnet5O", "model.backbone_weights: .*'resnet5O'"),
    ]:
        with pytest.raises(BotvisionError, match=expected) as caught:
            load_classifier_backbone(model, source, ["a", "b", "c"])
        assert "\n" not in str(caught.value)


def test_a_residual_networks_weights_are_a_backbone(tmp_path):
    source = create_model("resnet26", num_classes=5)
    torch.save(source.state_dict(), tmp_path / "resnet26.pth")
    model = build(3, classifier="botnet26")
    report = load_classifier_backbone(model, tmp_path / "resnet26.pth", ["a", "b", "c"])
    assert torch.equal(model.layer1[0].conv2.weight, source.layer1[0].conv2.weight)
    assert {"fc.weight", "fc.bias"} <= set(report.new)
    assert all(name.startswith(("fc.", "layer4.")) for name in report.new)
