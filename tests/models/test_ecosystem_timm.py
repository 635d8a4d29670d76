"""What timm does with its own networks it does with ours: features, classifiers, its trainer."""

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.testing import assert_close

from botvision.attention import MultiHeadSelfAttention2d
from botvision.weights.file import save_weights


def tiny(**options):
    """One block a stage, and both kinds of attention block: with and without pooling."""
    torch.manual_seed(0)
    arguments = {"img_size": 64, "num_classes": 5, "layers": (1, 1, 1, 2), "zero_init_last": False}
    return timm.create_model("botnet_tiny", **{**arguments, **options})


def image(height=64, width=96, batch=3, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, width, generator=generator)


def classification_loss(model, x):
    return nn.functional.cross_entropy(model(x), torch.tensor([0, 3, 4]))


@pytest.mark.parametrize("indices", [(0, 1, 2, 3, 4), (1, 3), (-2, -1), (2,)], ids=str)
def test_features(variant, indices, assert_descends):
    model = tiny(features_only=True, out_indices=indices, **variant)
    last = variant.get("output_stride", 32)
    strides = [[2, 4, 8, 16, last][index] for index in indices]
    channels = [[32, 128, 256, 512, 1024][index] for index in indices]
    assert model.feature_info.reduction() == strides
    assert model.feature_info.channels() == channels
    features = model(image(75, 131))
    assert [tuple(feature.shape) for feature in features] == [
        (3, c, -(-75 // s), -(-131 // s)) for c, s in zip(channels, strides, strict=True)
    ]
    x = image().double()
    assert_descends(model.double().train(), lambda: sum(f.square().mean() for f in model(x)))


@pytest.mark.parametrize("kind", ["dict", "hook", "getter"])
def test_features_by_any_of_timms_extractors(variant, kind):
    expected = tiny(features_only=True, **variant).eval()(image())
    model = tiny(features_only=True, feature_cls=kind, **variant).eval()
    features = model(image())
    assert_close(list(features.values()) if kind == "dict" else list(features), expected)


def test_intermediates(variant, assert_descends):
    model = tiny(**variant)
    expected = tiny(features_only=True, **variant).eval()(image())
    last, intermediates = model.eval().forward_intermediates(image())
    assert_close(intermediates, expected)
    assert_close(last, model.forward_features(image()))
    early = model.forward_intermediates(image(), [1, 3], stop_early=True, intermediates_only=True)
    assert_close(early, [expected[1], expected[3]])

    def loss():
        last, intermediates = model.forward_intermediates(image().double())
        losses = [each.square().mean() for each in intermediates]
        return sum(losses) + model.forward_head(last).square().mean()

    assert_descends(model.double().train(), loss)


def test_another_classifier(variant, assert_descends):
    model = tiny(**variant).eval()
    features = model.forward_features(image())
    model.reset_classifier(7, global_pool="max")
    assert torch.equal(model.forward_features(image()), features)
    pooled = features.amax((2, 3))
    assert_close(model(image()), pooled @ model.get_classifier().weight.T + model.fc.bias)
    model.reset_classifier(5, global_pool="avg")
    x = image().double()
    assert_descends(model.double().train(), lambda: classification_loss(model, x))


def test_a_backbone_without_its_unused_end():
    model = tiny()
    expected = model.eval().forward_intermediates(image(), [2], intermediates_only=True)
    model.prune_intermediate_layers([2], prune_head=True)
    assert not [m for m in model.modules() if isinstance(m, MultiHeadSelfAttention2d)]
    assert_close(model.forward_intermediates(image(), [2], intermediates_only=True), expected)


@pytest.mark.parametrize(
    ("name", "side", "crop"), [("botnet_tiny", 128, 1.0), ("botnet50", 224, 0.875)]
)
def test_data_config(name, side, crop):
    with torch.device("meta"):
        model = timm.create_model(name)
    config = resolve_data_config({}, model=model)
    assert config["input_size"] == (3, side, side)
    assert config["crop_pct"] == crop
    assert config["mean"] == (0.485, 0.456, 0.406)
    assert config["std"] == (0.229, 0.224, 0.225)
    transform = create_transform(**config)
    assert transform(Image.new("RGB", (300, 200))).shape == (3, side, side)


def assert_learns(model, optimizer):
    """A step moves every parameter, and the loss on the same batch falls."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss = classification_loss(model.train(), image())
    loss.backward()
    optimizer.step()
    unmoved = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert not unmoved
    assert classification_loss(model, image()) < loss


def rates_by_parameter(model, optimizer):
    """Scale of the learning rate and weight decay of each parameter, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group.get("lr_scale", 1.0), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_layer_decay(variant):
    model = tiny(**variant)
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    found = rates_by_parameter(model, optimizer)
    assert found.keys() == dict(model.named_parameters()).keys()
    # Stem, five blocks and the classifier: each half as fast as what comes after it.
    depth = {"conv1": 6, "bn1": 6, "layer1.0": 5, "layer2.0": 4, "layer3.0": 3}
    depth |= {"layer4.0": 2, "layer4.1": 1, "fc": 0}
    for name, (scale, decay) in found.items():
        (levels,) = (n for prefix, n in depth.items() if name.startswith(f"{prefix}."))
        assert scale == 0.5**levels, name
        decays = model.get_parameter(name).ndim > 1 and ".position." not in name
        assert decay == (0.05 if decays else 0), name
    assert_learns(model, optimizer)


def test_groups_of_stages():
    model = tiny()
    groups = group_parameters(model, model.group_matcher(coarse=True))
    prefixes = [{name.split(".")[0] for name in names} for _, names in sorted(groups.items())]
    assert prefixes == [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}, {"fc"}]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lion", "adafactor", "muon"])
def test_optimizers_of_timm(name):
    model = tiny()
    assert_learns(model, create_optimizer_v2(model, name, lr=1e-4))


def test_schedule_and_average():
    model = tiny()
    optimizer = create_optimizer_v2(model, "sgd", lr=0.01, weight_decay=1e-4)
    schedule, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=4, warmup_epochs=1)
    average = ModelEmaV3(model, decay=0.5)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    for epoch in range(2):
        optimizer.zero_grad()
        classification_loss(model, image()).backward()
        optimizer.step()
        if epoch == 0:
            first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        average.update(model)
        schedule.step(epoch + 1)
    assert 0 < optimizer.param_groups[0]["lr"] < 0.01
    second = model.state_dict()
    for name, tensor in average.module.state_dict().items():
        if tensor.is_floating_point():
            expected = start[name] / 4 + first[name] / 4 + second[name] / 2
            assert_close(tensor, expected, msg=name)
        else:
            assert torch.equal(tensor, second[name])
    assert not torch.equal(start["fc.weight"], second["fc.weight"])
    assert average.module(image()).isfinite().all()


def save_as_torch(path, model):
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, path)


def save_as_ours(path, model):
    save_weights(path, model)


SAVES = {"checkpoint.pth.tar": save_as_torch, "weights.safetensors": save_as_ours}


@pytest.mark.parametrize(("name", "save"), SAVES.items(), ids=SAVES)
def test_checkpoint_path(variant, name, save, tmp_path):
    path = tmp_path / name
    model = tiny(**variant).eval()
    save(path, model)
    torch.manual_seed(1)
    # At twice the size the tables are resized, and at the old size they are the old ones.
    for side, size in ((64, (64, 96)), (128, (128, 128))):
        arguments = {"img_size": side, "num_classes": 5, "layers": (1, 1, 1, 2), **variant}
        other = timm.create_model("botnet_tiny", checkpoint_path=path, **arguments).eval()
        assert_close(other(image(*size)), model(image(*size)), rtol=1e-4, atol=1e-4)


def test_fine_tuning_from_local_weights(tmp_path):
    # What timm's trainer does with --pretrained, another channel count and other classes.
    path = tmp_path / "weights.safetensors"
    model = tiny()
    save_as_ours(path, model)
    other = tiny(
        pretrained=True, pretrained_cfg_overlay={"file": str(path)}, num_classes=7, in_chans=1
    )
    ours, theirs = model.state_dict(), other.state_dict()
    adapted = {key for key in ours if ours[key].shape != theirs[key].shape}
    assert adapted == {"conv1.0.weight", "fc.weight", "fc.bias"}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() - adapted)
    assert_close(theirs["conv1.0.weight"], ours["conv1.0.weight"].sum(1, keepdim=True))
