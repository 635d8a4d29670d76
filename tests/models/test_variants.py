"""The table of variants as timm models: every row, at any image size."""

import pytest
import timm
import torch
from timm.models.resnet import ResNet
from torch import nn

from botvision.attention import MultiHeadSelfAttention2d
from botvision.models import BoTNet, NonLocal2d, create_model, list_models, variants
from botvision.models.paper_costs import PAPER_COSTS
from botvision.models.variants import VARIANTS

# The network of a row, but thin and shallow.
SMALL = {"layers": (1, 1, 2, 2), "channels": (8, 8, 16, 16), "num_classes": 5}

every = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
botnets = pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if v.extras.network is BoTNet], ids=lambda v: v.name
)


def on_meta(variant, **options):
    with torch.device("meta"):
        return create_model(variant.name, **options)


def attentions(model):
    return [m for m in model.modules() if isinstance(m, MultiHeadSelfAttention2d)]


def test_names_are_unique_and_all_are_listed():
    names = [variant.name for variant in VARIANTS]
    assert sorted(set(names)) == sorted(names) == list_models()
    assert set(PAPER_COSTS) <= set(names)


def test_public_names():
    # Other code asks for these; see the design.
    depths = {f"botnet{depth}" for depth in (18, 34, 50, 101, 152, 200)}
    series = {f"botnet_t{n}" for n in range(3, 8)} | {f"senet_s{n}" for n in range(6)}
    inserted = {"resnet50_nl_c4", "resnet50_bot_c4", "resnet50_bot_c4c5"}
    others = {"se_resnet350", "botnet_tiny", "botnet26"}
    assert depths | {f"{name}_s1" for name in depths} | series | inserted | others == set(
        list_models()
    )


@every
def test_row(variant):
    model = on_meta(variant)
    assert isinstance(model, ResNet)
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    inserted = [len([n for n, _ in s.named_children() if "inserted" in n]) for s in stages]
    counts = [len(stage) - more for stage, more in zip(stages, inserted, strict=True)]
    assert tuple(counts) == variant.blocks
    assert model.feature_info[-1]["reduction"] == 16 * variant.c5_stride


@pytest.mark.parametrize("name", ["senet_s0", "senet_s5", "se_resnet350", "botnet_t7"])
def test_squeeze_and_excitation_in_every_convolutional_block(name):
    with torch.device("meta"):
        model = create_model(name)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        assert all((b.se is None) == bool(attentions(b)) for b in stage)
    assert isinstance(model.act1, nn.ReLU if name == "se_resnet350" else nn.SiLU)


@pytest.mark.parametrize(
    ("name", "depth"), [("senet_s0", 50), ("senet_s4", 200), ("senet_s5", 350)]
)
def test_depth(name, depth):
    # Three convolutions a block, the stem's and the classifier.
    (variant,) = (v for v in VARIANTS if v.name == name)
    assert 3 * sum(variant.blocks) + 2 == depth


@pytest.mark.parametrize(
    ("ours", "timms"), [("senet_s0", "seresnet50"), ("senet_s2", "seresnet152")]
)
def test_senets_are_timms_but_for_the_activation(ours, timms):
    with torch.device("meta"):
        a, b = create_model(ours).state_dict(), timm.create_model(timms).state_dict()
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


def test_botnet26_has_the_backbone_of_timms_resnet26():
    with torch.device("meta"):
        botnet, resnet = create_model("botnet26"), timm.create_model("resnet26")
    missing, unexpected = botnet.load_state_dict(resnet.state_dict(), strict=False, assign=True)
    assert all(".conv2.attention." in name for name in missing)
    assert unexpected == [f"layer4.{block}.conv2.weight" for block in range(2)]


@every
def test_default_configuration(variant):
    model = on_meta(variant, num_classes=7, in_chans=4)
    config = model.pretrained_cfg
    assert config["input_size"] == (3, variant.input_size, variant.input_size)
    assert model.get_submodule(config["first_conv"]).in_channels == 4
    assert model.get_submodule(config["classifier"]).out_features == 7
    assert config["mean"] == (0.485, 0.456, 0.406)
    stride = model.feature_info[-1]["reduction"]
    assert config["pool_size"] == tuple(side // stride for side in config["input_size"][1:])
    if variant.extras.network is BoTNet:
        # What c5 hands on, at the configured input size, is what the tables are made for.
        assert model.layer4[-1].conv2.attention.position.size == config["pool_size"]


@every
def test_docstring_names_the_paper_and_its_costs(variant):
    text = timm.model_entrypoint(variant.name).__doc__
    assert text.startswith(f"{variant.title}.\n")
    assert any(word in variant.title for word in ("table", "section", "ours", "our", "R18", "R34"))
    for costs in PAPER_COSTS.get(variant.name, ()):
        assert f"{costs.multiply_adds / 1e9:g}G multiply-adds at {costs.input_size}" in text


def test_entry_points_are_importable_by_name():
    for name in list_models():
        assert getattr(variants, name) is timm.model_entrypoint(name)


@pytest.mark.parametrize("size", [(75, 131), (33, 31)], ids=str)
@every
def test_any_image_size_forward_and_backward(variant, size):
    torch.manual_seed(0)
    model = create_model(variant.name, **SMALL, zero_init_last=False).train()
    x = torch.randn(2, 3, *size, requires_grad=True)
    out = model(x)
    assert out.shape == (2, 5)
    out.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every
def test_every_model_takes_an_image_size(variant):
    # So that detectors give theirs to any of our networks.
    model = on_meta(variant, img_size=(64, 96))
    maps = {attention.position.size for attention in attentions(model)}
    assert maps <= {(4, 6), (2, 3)}
    assert bool(maps) == variant.has_position_tables


@pytest.mark.parametrize(
    "options",
    [{"position": "relative", "content": False}, {"position": "absolute"}, {"position": "none"}],
    ids=str,
)
@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if v.has_position_tables], ids=lambda v: v.name
)
def test_positions_are_arguments_of_every_botnet(variant, options):
    model = create_model(variant.name, **SMALL, **options).eval()
    assert attentions(model)
    for attention in attentions(model):
        assert attention.content == options.get("content", True)
        kind = type(attention.position).__name__.lower()
        assert kind.startswith(options["position"])
    assert model(torch.randn(1, 3, 40, 56)).shape == (1, 5)


@botnets
def test_c5_attends_and_nothing_else(variant):
    model = on_meta(variant)
    assert len(attentions(model)) == len(attentions(model.layer4)) == len(model.layer4)
    assert not [m for m in model.modules() if isinstance(m, NonLocal2d)]


def test_one_models_arguments_do_not_reach_the_next():
    before = [variant.arguments() for variant in VARIANTS]
    for variant in VARIANTS:
        on_meta(variant, img_size=64, num_classes=3, act_layer="gelu")
    assert [variant.arguments() for variant in VARIANTS] == before
