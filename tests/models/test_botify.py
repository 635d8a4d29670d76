"""ResNets of timm and torchvision as BoTNets: what is replaced, and that all else stays."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import AvgPool2dSame, BlurPool2d
from torch import nn
from torch.testing import assert_close

import botvision
from botvision.attention import MultiHeadSelfAttention2d

SMALL = {"channels": (16, 32, 64, 128), "num_classes": 5}
SE = {"block_args": {"attn_layer": "se"}}


def timm_resnet(name="resnet26", **options):
    return timm.create_model(name, **{**SMALL, **options})


def torchvision_resnet(**options):
    block = torchvision.models.resnet.Bottleneck
    return torchvision.models.ResNet(block, [1, 1, 1, 2], num_classes=5, **options)


NETWORKS = {
    "bottleneck": timm_resnet,
    "basic": lambda: timm_resnet("resnet18"),
    "resnext": lambda: timm_resnet(cardinality=4, base_width=32),
    "wide": lambda: timm_resnet(base_width=128),
    "se": lambda: timm_resnet(**SE),
    "d": lambda: timm_resnet("resnet26d"),
    "basic d": lambda: timm_resnet("resnet18d"),
    "deep stem, tiered, replaced pool": lambda: timm_resnet(
        stem_type="deep_tiered", stem_width=32, replace_stem_pool=True
    ),
    "anti-aliased": lambda: timm_resnet(aa_layer=BlurPool2d),
    "basic, anti-aliased": lambda: timm_resnet("resnet18", aa_layer=BlurPool2d),
    "drop block and path": lambda: timm_resnet(drop_block_rate=0.1, drop_path_rate=0.1),
    "dilated": lambda: timm_resnet(output_stride=16),
    "group norm": lambda: timm_resnet(norm_layer=lambda channels, **_: nn.GroupNorm(4, channels)),
    "features": lambda: timm_resnet(features_only=True),
    "torchvision basic": lambda: torchvision.models.resnet18(num_classes=5),
    "torchvision resnext": lambda: torchvision_resnet(groups=32, width_per_group=4),
    "torchvision wide": lambda: torchvision_resnet(width_per_group=128),
}


def wake(model):
    """Give every residual branch its weight, and BatchNorm statistics that are not a new one's."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def last(output):
    return output[-1] if isinstance(output, list) else output


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("stride_one", [False, True])
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_conversion(build, stride_one):
    network = wake(build())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    reports = []
    assert botvision.botify(network, stride_one=stride_one, report=reports.append) is network
    after = network.state_dict()
    replaced = [f"layer4.{block}.conv2" for block in range(len(network.layer4))]
    assert set(before) - set(after) == {f"{name}.weight" for name in replaced}
    new = {
        f"{name}.attention.{tensor}"
        for name in replaced
        for tensor in ("qkv.weight", "position.height", "position.width")
    }
    assert set(after) - set(before) == new
    assert all(torch.equal(after[name], before[name]) for name in after if name not in new)
    (report,) = reports
    assert (report.replaced, set(report.new)) == (tuple(replaced), new)
    assert report.kept == len(before) - len(replaced)
    assert "\n" not in str(report)
    assert all(name in str(report) for name in [*replaced, *new])
    for size in [(64, 64), (70, 33)]:
        x = torch.randn(2, 3, *size)
        network.train()
        last(network(x)).square().sum().backward()
        assert all(p.grad is not None for p in network.layer4.parameters())
        assert last(network.eval()(x)).isfinite().all()


@pytest.mark.parametrize("stride_one", [False, True])
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_tables_are_made_for_the_maps_at_224(build, stride_one):
    network = botvision.botify(build(), stride_one=stride_one).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, MultiHeadSelfAttention2d):
            module.register_forward_pre_hook(lambda m, args: seen.append((m, args[0].shape[2:])))
    config = getattr(network, "pretrained_cfg", {"input_size": (3, 224, 224)})
    with torch.no_grad():
        network(torch.zeros(1, *config["input_size"]))
    assert len(seen) == len(network.layer4)
    assert all(m.position.size == tuple(shape) for m, shape in seen)


def test_resnet50_becomes_botnet50():
    with torch.device("meta"):
        ours = botvision.create_model("botnet50").state_dict()
        converted = botvision.botify(timm.create_model("resnet50")).state_dict()
    assert [(k, v.shape) for k, v in ours.items()] == [(k, v.shape) for k, v in converted.items()]


@pytest.mark.parametrize("stride_one", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"avg_down": True, "stem_type": "deep"},
        {"aa_layer": BlurPool2d},
        {"aa_layer": nn.AvgPool2d},
        SE,
    ],
    ids=str,
)
def test_computes_what_our_network_computes(options, stride_one):
    # Two ways to the same network: timm's class with our block, timm's network converted.
    form = {"output_stride": 16} if stride_one else {}
    layers = {"layers": (1, 1, 1, 2), **SMALL, **options}
    ours = wake(botvision.create_model("botnet26", **layers, **form, se_everywhere=True))
    converted = timm.create_model("resnet26", **layers)
    botvision.botify(converted, stride_one=stride_one).eval()
    converted.load_state_dict(ours.state_dict())
    assert converted.feature_info[-1]["reduction"] == ours.feature_info[-1]["reduction"]
    # timm's average pooling rounds down where its shortcut rounds up: no odd maps.
    odd = (75, 131) if options.get("aa_layer") is not nn.AvgPool2d else (64, 96)
    for size in [(64, 64), odd]:
        x = torch.randn(1, 3, *size)
        expected = ours.forward_features(x)
        side = 16 if stride_one else 32
        assert expected.shape[2:] == (-(-size[0] // side), -(-size[1] // side))
        assert_close(converted.forward_features(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("library", [timm, torchvision])
def test_a_strided_block_against_the_paper(library):
    # Written out: contraction, attention at full resolution, pooling, expansion, shortcut.
    network = timm_resnet() if library is timm else torchvision_resnet()
    block = botvision.botify(wake(network)).layer4[0]
    x = torch.randn(2, block.conv1.in_channels, 6, 9)
    y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight)))
    y = block.conv2.attention(y)
    assert y.shape[2:] == (6, 9)
    y = torch.cat([y, y[..., -1:]], dim=-1)  # a column repeated makes the last mean that of one
    y = y.unflatten(3, (5, 2)).unflatten(2, (3, 2)).mean(dim=(3, 5))
    y = block.bn3(F.conv2d(F.relu(block.bn2(y)), block.conv3.weight))
    shortcut = block.downsample[1](F.conv2d(x, block.downsample[0].weight)[..., ::2, ::2])
    assert_close(block(x), F.relu(y + shortcut), rtol=1e-4, atol=1e-4)


def test_a_basic_block_keeps_its_first_convolution():
    block = botvision.botify(wake(timm_resnet("resnet18"))).layer4[0]
    x = torch.randn(1, 64, 7, 6)
    y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, stride=2, padding=1)))
    y = block.bn2(block.conv2.attention(y))
    shortcut = block.downsample[1](F.conv2d(x, block.downsample[0].weight, stride=2))
    assert_close(block(x), F.relu(y + shortcut), rtol=1e-4, atol=1e-4)


def test_stride_one_keeps_timms_average_in_the_shortcut():
    block = botvision.botify(timm_resnet("resnet26d"), stride_one=True).layer4[0]
    assert isinstance(block.downsample[0], AvgPool2dSame)


def test_inside_a_torchvision_detector():
    detector = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96
    )
    frozen = {n: t.clone() for n, t in detector.state_dict().items() if "bn" in n}
    botvision.botify(detector.backbone.body)
    assert type(detector.backbone.body.layer4[0].bn2).__name__ == "BatchNorm2d"
    assert all(torch.equal(detector.state_dict()[n], t) for n, t in frozen.items())
    targets = {
        "boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 64, 80, dtype=torch.uint8),
    }
    sum(detector([torch.rand(3, 64, 80)], [targets]).values()).backward()
    assert detector.backbone.body.layer4[0].conv2.attention.qkv.weight.grad.abs().sum() > 0


def test_frozen_batch_normalization_stays_and_new_parameters_are_trainable():
    frozen = torchvision.ops.FrozenBatchNorm2d
    network = torchvision.models.resnet18(norm_layer=frozen).requires_grad_(False)
    block = botvision.botify(network).layer4[1]
    assert isinstance(block.bn2, frozen)
    trainable = {name for name, p in block.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in block.named_parameters() if "attention" in name}


def test_options():
    network = timm_resnet()
    botvision.botify(
        network,
        position="absolute",
        position_size=(5, 8),
        content=False,
        num_heads=2,
        impl="reference",
    )
    first, second = (block.conv2.attention for block in network.layer4)
    assert (first.position.size, second.position.size) == ((5, 8), (3, 4))
    assert (first.num_heads, first.content, first.impl) == (2, False, "reference")
    again = botvision.botify(timm_resnet(), **network.botify_arguments).state_dict()
    assert {n: t.shape for n, t in again.items()} == {
        n: t.shape for n, t in network.state_dict().items()
    }
    assert (
        botvision.botify(timm_resnet(), position="none").layer4[0].conv2.attention.position is None
    )
    side = botvision.botify(timm_resnet(), position_size=6).layer4[0].conv2.attention
    assert side.position.size == (6, 6)


def test_device_dtype_and_mode_are_the_networks():
    network = botvision.botify(timm_resnet().double().eval())
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    assert not any(module.training for module in network.modules())


def custom(change):
    network = timm_resnet()
    change(network.layer4[1])
    return network


WRONG = {
    "no ResNet": (nn.Linear(2, 2), "stages layer1 to layer4, got Linear$"),
    "transformer": (lambda: timm.create_model("vit_tiny_patch16_224"), "got VisionTransformer"),
    "inside": (lambda: nn.ModuleDict({"a": timm_resnet()}), "convert its 'a' instead"),
    "twice": (lambda: botvision.botify(timm_resnet()), r"layer4\.0 attends already"),
    "no block": (lambda: timm_resnet("resnet18", layers=(1, 1, 1, 0)), "blocks in layer4"),
    "other": (lambda: timm.create_model("skresnet18"), "SelectiveKernelBasic.*ConvNormAct"),
    "none": (lambda: timm.create_model("res2net50_26w_4s"), "Bottle2neck.*got none"),
    "widening": (lambda: timm_resnet(block_reduce_first=2), "got 64 in and 128 out"),
    "kernel": (
        lambda: custom(lambda block: setattr(block, "conv2", nn.Conv2d(128, 128, 5, padding=2))),
        r"layer4\.1\.conv2 .*stride 1 or 2, got Conv2d\(128",
    ),
}


@pytest.mark.parametrize(("build", "expected"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_converted_is_refused_and_left_alone(build, expected):
    network = build if isinstance(build, nn.Module) else build()
    text, state = repr(network), copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=expected) as raised:
        botvision.botify(network, stride_one=True)
    assert "\n" not in str(raised.value)
    assert repr(network) == text
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_heads": 3}, "divisor of dim = 128, got 3"),
        ({"position": "rotary"}, "relative, absolute or none, got 'rotary'"),
        ({"position_size": 0}, "position_size"),
        ({"impl": "none"}, "impl: expected one of"),
    ],
)
def test_wrong_options_leave_the_network_alone(options, expected):
    network = timm_resnet()
    text = repr(network)
    with pytest.raises(ValueError, match=expected):
        botvision.botify(network, **options)
    assert repr(network) == text
