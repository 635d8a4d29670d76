"""Table 7's networks: a ResNet with one or two blocks more, and all that timm does with it."""

import copy
import pickle

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.models.resnet import Bottleneck
from torch import nn
from torch.testing import assert_close

from botvision.models import BottleneckTransformer, NonLocal2d, create_model
from botvision.models.inserted import InsertedResNet

NAMES = {
    "resnet50_nl_c4": {"layer3": NonLocal2d},
    "resnet50_bot_c4": {"layer3": BottleneckTransformer},
    "resnet50_bot_c4c5": {"layer3": BottleneckTransformer, "layer4": BottleneckTransformer},
}
SMALL = {"layers": (1, 1, 3, 2), "channels": (8, 8, 16, 16), "num_classes": 5}
each = pytest.mark.parametrize("name", NAMES)


def small(name, **options):
    torch.manual_seed(0)
    return create_model(name, **{**SMALL, "img_size": 64, **options})


def wake(model):
    """Undo the zeros of the residual branches, which would hide them from a test."""
    for name, module in model.named_modules():
        if name.endswith(("bn3", "norm")):
            nn.init.ones_(module.weight)
    return model


@each
def test_one_block_more_before_the_last_of_its_stage(name):
    with torch.device("meta"):
        model, resnet = create_model(name), timm.create_model("resnet50")
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        blocks = list(model.get_submodule(stage))
        if stage in NAMES[name]:
            inserted = blocks.pop(-2)
            assert type(inserted) is NAMES[name][stage]
            assert inserted is model.get_submodule(f"{stage}.{len(blocks) - 2}_inserted")
        # No convolution goes: c5 keeps its own.
        assert [type(block) for block in blocks] == [Bottleneck] * len(resnet.get_submodule(stage))
        assert all(block.conv2.kernel_size == (3, 3) for block in blocks)


@each
def test_a_resnets_weights_fit_and_give_its_outputs(name):
    # What is inserted starts as the identity, so a trained network may be extended.
    model = create_model(name).eval()
    resnet = timm.create_model("resnet50", zero_init_last=False).eval()
    missing, unexpected = model.load_state_dict(resnet.state_dict(), strict=False)
    assert unexpected == []
    assert all("_inserted." in name for name in missing)
    x = torch.randn(1, 3, 64, 96)
    assert_close(model(x), resnet(x), rtol=0, atol=0)
    wake(model)
    assert (model(x) - resnet(x)).abs().max() > 1e-3


def test_widths_and_maps_of_table_7():
    with torch.device("meta"):
        model = create_model("resnet50_bot_c4c5", img_size=(1024, 640))
    c4, c5 = model.layer3[-2].conv2.attention, model.layer4[-2].conv2.attention
    assert (c4.dim, c4.position.size, c4.num_heads) == (256, (64, 40), 4)
    assert (c5.dim, c5.position.size, c5.num_heads) == (512, (32, 20), 4)


@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_tables_fit_the_maps(output_stride):
    model = small("resnet50_bot_c4c5", img_size=(75, 131), output_stride=output_stride).eval()
    seen = []
    for stage in (model.layer3, model.layer4):
        stage[-2].conv2.attention.register_forward_pre_hook(
            lambda module, args: seen.append((module.position.size, tuple(args[0].shape[2:])))
        )
    model(torch.zeros(1, 3, 75, 131))
    assert len(seen) == 2
    assert all(tables == shape for tables, shape in seen)


@pytest.mark.parametrize("zero_init_last", [True, False])
@each
def test_initialization(name, zero_init_last):
    model = small(name, channels=(8, 8, 64, 64), zero_init_last=zero_init_last)
    blocks = [module for n, module in model.named_modules() if n.endswith("_inserted")]
    assert len(blocks) == len(NAMES[name])
    for block in blocks:
        non_local = isinstance(block, NonLocal2d)
        last, weight, std = (
            (block.norm, block.theta.weight, 0.01)
            if non_local
            else (block.bn3, block.conv2.attention.qkv.weight, 64**-0.5)
        )
        assert last.weight.unique().tolist() == [0.0 if zero_init_last else 1.0]
        assert weight.std().item() == pytest.approx(std, rel=0.05)


@each
def test_stages_drop_path_and_activation_are_timms(name):
    model = small(name, drop_path_rate=0.3, act_layer="silu")
    rates = [b.drop_path.drop_prob for b in model.layer3 if getattr(b, "drop_path", None)]
    assert rates == sorted(rates)
    assert model.layer4[-1].drop_path.drop_prob == pytest.approx(0.3)
    acts = {type(b.act3) for b in model.layer3 if isinstance(b, Bottleneck)}
    assert acts == {nn.SiLU}


@each
def test_features_only(name):
    model = small(name, features_only=True).eval()
    features = model(torch.randn(1, 3, 75, 131))
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert [f.shape[1] for f in features] == model.feature_info.channels()


@each
def test_forward_intermediates(name):
    model = wake(small(name)).eval()
    x = torch.randn(1, 3, 64, 64)
    last, features = model.forward_intermediates(x)
    assert_close(last, model.forward_features(x))
    assert len(features) == 5


@each
def test_classifier(name):
    model = small(name, in_chans=1).eval()
    model.reset_classifier(3)
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 3)


@each
def test_gradient_checkpointing_changes_no_gradient(name):
    grads = []
    for enable in (False, True):
        model = wake(small(name)).double().train()
        model.set_grad_checkpointing(enable)
        x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.manual_seed(1))
        model(x).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert_close(grads[0], grads[1])


@each
def test_the_inserted_learns_at_its_neighbors_rate(name):
    # timm's layer-wise decay gives what it cannot place the rate of the classifier.
    model = small(name)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    inserted = {group for n, group in groups.items() if n.startswith("layer3.1_inserted.")}
    assert inserted == {groups["layer3.1.conv1.weight"]}


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@each
def test_copies(name, clone):
    model = wake(small(name)).eval()
    x = torch.randn(1, 3, 64, 64)
    assert_close(clone(model)(x), model(x))


@pytest.mark.parametrize("kwargs", [{"device": "meta"}, {"dtype": torch.float64}], ids=str)
@each
def test_device_and_dtype_of_timm_reach_every_parameter(name, kwargs):
    ((key, value),) = kwargs.items()
    found = {str(getattr(p, key)) for p in small(name, **kwargs).parameters()}
    assert found == {str(value)}


def test_options_of_the_attention():
    model = small("resnet50_bot_c4c5", position="absolute", content=False, num_heads=2)
    for stage in (model.layer3, model.layer4):
        attention = stage[-2].conv2.attention
        assert (attention.num_heads, attention.content) == (2, False)
        assert not attention.position.relative
    assert small("resnet50_nl_c4", attention_impl="chunked").layer3[-2].impl == "chunked"


@each
def test_too_few_blocks(name):
    with pytest.raises(ValueError, match=r"at least 2 blocks in c4, .* got \(1, 1, 1, 2\)"):
        small(name, layers=(1, 1, 1, 2))


def test_unknown_stage():
    with pytest.raises(ValueError, match="stages: expected some of c2, c3, c4, c5, got 'c6'"):
        small("resnet50_bot_c4", stages=("c6",))
    with pytest.raises(ValueError, match="got 'layer3'"):
        InsertedResNet((2, 2, 2, 2), inserted={"layer3": nn.Identity})


def test_wrong_options():
    with pytest.raises(ValueError, match="num_heads: expected a divisor of dim = 16, got 3"):
        small("resnet50_bot_c4", num_heads=3)
    with pytest.raises(ValueError, match=r"img_size: expected .* got 0"):
        small("resnet50_bot_c4", img_size=0)
    with pytest.raises(ValueError, match=r"impl: expected one of auto, .* got 'fast'"):
        small("resnet50_nl_c4", attention_impl="fast")
    # A Non-Local block has no positions to choose.
    with pytest.raises(TypeError, match="position"):
        small("resnet50_nl_c4", position="absolute")
