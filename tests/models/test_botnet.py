"""BoTNets as timm models: everything that timm does with a ResNet works, at any image size."""

import copy
import io
import pickle
import re

import numpy as np
import pytest
import timm
import torch
from timm.models.resnet import BasicBlock
from torch import nn
from torch.testing import assert_close

import botvision
from botvision.attention import MultiHeadSelfAttention2d
from botvision.models import BottleneckTransformer, create_model, list_models

SIZES = [(64, 64), (75, 131), (31, 33), (40, 7), (1, 1)]


def tiny(**kwargs):
    torch.manual_seed(0)
    return timm.create_model("botnet_tiny", **kwargs)


def wake(model):
    """Undo the zero gamma of the residual branches, which would hide them from a test."""
    for block in model.modules():
        if hasattr(block, "zero_init_last"):
            nn.init.ones_(block.bn3.weight)
    return model


def attentions(model):
    return [m for m in model.modules() if isinstance(m, MultiHeadSelfAttention2d)]


def test_names():
    names = [f"botnet{depth}{form}" for depth in (50, 101, 152, 200) for form in ("", "_s1")]
    assert set(names) | {"botnet_tiny", "botnet26"} <= set(list_models())
    assert set(list_models()) <= set(timm.list_models())
    assert botvision.list_models() == list_models()
    assert list_models("botnet_t?") == [f"botnet_t{number}" for number in range(3, 8)]
    assert list_models("no*") == []


@pytest.mark.parametrize("name", ["botnet50", "botnet50_s1", "botnet_tiny"])
def test_attention_replaces_every_3x3_convolution_of_c5(name):
    with torch.device("meta"):
        model = create_model(name)
    for block in model.layer4:
        assert isinstance(block, BottleneckTransformer)
        assert not [
            m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)
        ]
    assert len(attentions(model)) == len(model.layer4)
    assert not attentions(model.layer3)
    shortcuts = [layer[0].downsample for layer in (model.layer2, model.layer3, model.layer4)]
    assert all(shortcut[0].kernel_size == (1, 1) for shortcut in shortcuts)


def test_last_gamma_starts_at_zero():
    model = tiny()
    assert all(
        block.bn3.weight.abs().max() == 0
        for layer in (model.layer1, model.layer4)
        for block in layer
    )
    assert tiny(zero_init_last=False).layer4[0].bn3.weight.min() == 1


def test_attention_keeps_its_own_initialization():
    # timm's ResNet would give the projection He's, which is for convolutions before a ReLU.
    with torch.random.fork_rng():
        weight = tiny().layer4[1].conv2.attention.qkv.weight
    assert weight.std().item() == pytest.approx(256**-0.5, rel=0.02)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_image_size_forward_and_backward(size):
    model = wake(tiny(num_classes=5)).train()
    x = torch.randn(2, 3, *size, requires_grad=True)
    out = model(x)
    assert out.shape == (2, 5)
    out.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tables_are_made_for_the_maps_of_the_image(size, output_stride):
    # So that at the size it was built for, no table is interpolated.
    model = tiny(img_size=size, output_stride=output_stride).eval()
    seen = []
    for attention in attentions(model):
        attention.register_forward_pre_hook(lambda m, args: seen.append((m, args[0].shape[2:])))
    model(torch.zeros(1, 3, *size))
    assert len(seen) == 2
    for attention, shape in seen:
        assert attention.position.size == tuple(shape)


@pytest.mark.parametrize("size", [(96, 64), [96, 64], torch.Size((96, 64)), np.array((96, 64))])
def test_image_size_in_any_form(size):
    assert tiny(img_size=size).layer4[1].conv2.attention.position.size == (3, 2)


@pytest.mark.parametrize(("output_stride", "side"), [(32, 2), (16, 4), (8, 8)])
def test_output_stride(output_stride, side):
    model = tiny(output_stride=output_stride).eval()
    assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape == (1, 1024, side, side)
    assert model.feature_info[-1]["reduction"] == output_stride


@pytest.mark.parametrize("name", ["botnet18", "botnet34"])
def test_basic_blocks_before_bottlenecks_that_attend(name):
    # Paper: basic blocks for the convolutions, BoT bottleneck blocks for the attention.
    with torch.device("meta"):
        botnet, resnet = create_model(name), timm.create_model(name.replace("bot", "res"))
    assert {type(b) for b in [*botnet.layer1, *botnet.layer2, *botnet.layer3]} == {BasicBlock}
    assert [b.conv2.attention.dim for b in botnet.layer4] == [512] * len(resnet.layer4)
    assert botnet.num_features == botnet.feature_info[-1]["num_chs"] == 2048
    # All but c5 and the classifier, which sees more channels, comes from the ResNet.
    _, unexpected = botnet.load_state_dict(
        {k: v for k, v in resnet.state_dict().items() if not k.startswith(("layer4", "fc"))},
        strict=False,
        assign=True,
    )
    assert not unexpected


@pytest.mark.parametrize("name", ["botnet50", "botnet50_s1"])
def test_s1_is_output_stride_16(name):
    with torch.device("meta"):
        plain = create_model("botnet50", output_stride=16).state_dict()
        s1 = create_model("botnet50_s1").state_dict()
    assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in s1.items()}


def test_features_only():
    model = tiny(features_only=True).eval()
    features = model(torch.randn(1, 3, 75, 131))
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert [f.shape[1] for f in features] == model.feature_info.channels()
    for feature, stride in zip(features, model.feature_info.reduction(), strict=True):
        assert feature.shape[2:] == (-(-75 // stride), -(-131 // stride))
    assert len(tiny(features_only=True, out_indices=(1, 4))(torch.randn(2, 3, 64, 64))) == 2


def test_forward_intermediates():
    model = wake(tiny()).eval()
    x = torch.randn(1, 3, 64, 64)
    last, features = model.forward_intermediates(x)
    assert_close(last, model.forward_features(x))
    assert [f.shape[2] for f in features] == [32, 16, 8, 4, 2]


def test_classifier():
    model = tiny(num_classes=10, in_chans=1).eval()
    x = torch.randn(2, 1, 64, 64)
    assert model(x).shape == (2, 10)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features) == (2, 1024)


def test_gradient_checkpointing_changes_no_gradient():
    grads = []
    for enable in (False, True):
        model = wake(tiny(num_classes=2)).train()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        model(torch.randn(2, 3, 64, 64)).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert_close(grads[0], grads[1])


def test_drop_path_grows_to_the_last_block():
    rates = [b.drop_path.drop_prob if b.drop_path else 0.0 for b in tiny(drop_path_rate=0.3).layer4]
    assert rates == pytest.approx([0.3 * 6 / 7, 0.3])


@pytest.mark.parametrize("position", ["relative", "absolute", "none"])
def test_options_of_the_attention(position):
    model = tiny(position=position, num_heads=8, attention_impl="reference", num_classes=2)
    for attention in attentions(model):
        assert attention.num_heads == 8
        assert attention.impl == "reference"
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 2)


def test_implementations_agree_through_the_network():
    model = wake(tiny()).eval()
    x = torch.randn(1, 3, 96, 64)
    chunked = model(x)
    for attention in attentions(model):
        attention.impl = "reference"
    assert_close(model(x), chunked, rtol=1e-4, atol=1e-4)


def test_state_dict_round_trip():
    model, other = wake(tiny()).eval(), timm.create_model("botnet_tiny").eval()
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(1, 3, 64, 64)
    assert_close(other(x), model(x), rtol=0, atol=0)


def test_weights_of_another_image_size():
    # Design: loading resizes the tables, so that a model trained at 128 goes on at 192.
    model, other = wake(tiny()).eval(), timm.create_model("botnet_tiny", img_size=192).eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 192, 192)
    assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)


def test_weights_of_a_resnet_fit_all_but_the_attention():
    # Section 4: COCO runs start from an ImageNet ResNet; the replaced layers start random.
    with torch.device("meta"):
        resnet, botnet = timm.create_model("resnet50"), create_model("botnet50")
    missing, unexpected = botnet.load_state_dict(resnet.state_dict(), strict=False, assign=True)
    assert all(".conv2.attention." in name for name in missing)
    assert unexpected == [f"layer4.{block}.conv2.weight" for block in range(3)]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(clone):
    # Pickling is how a model reaches spawned processes and Ray's workers.
    model = wake(tiny()).eval()
    x = torch.randn(1, 3, 64, 64)
    assert_close(clone(model)(x), model(x))


@pytest.mark.parametrize("kwargs", [{"device": "meta"}, {"dtype": torch.float64}], ids=str)
def test_device_and_dtype_of_timm_reach_every_parameter(kwargs):
    ((key, value),) = kwargs.items()
    found = {str(getattr(p, key)) for p in tiny(**kwargs).parameters()}
    assert found == {str(value)}


def test_anti_aliasing_pools_once():
    # timm moves the stride into the anti-aliasing layer; the block must not pool as well.
    model = tiny(aa_layer=timm.layers.BlurPool2d).eval()
    assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape == (1, 1024, 2, 2)


def test_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match=r"'botnet5O' is unknown; did you mean botnet50"):
        create_model("botnet5O")
    with pytest.raises(ValueError, match=r"'qqqqqq' is unknown$"):
        create_model("qqqqqq")


def test_wrong_options():
    with pytest.raises(ValueError, match="expected relative, absolute or none, got 'rotary'"):
        tiny(position="rotary")
    with pytest.raises(ValueError, match="num_heads: expected a divisor of dim = 256, got 3"):
        tiny(num_heads=3)


@pytest.mark.parametrize("size", [0, -1, 1.5, "224", (224,), (224, 0), (1, 2, 3)], ids=repr)
def test_wrong_image_size(size):
    message = "img_size: expected a side or (height, width) in pixels, 1 or more, got "
    with pytest.raises(ValueError, match=re.escape(f"{message}{size!r}")):
        tiny(img_size=size)


def test_other_models_of_timm_are_within_reach():
    with torch.device("meta"):
        assert isinstance(create_model("resnet18", num_classes=3), timm.models.ResNet)


def test_chunked_attention_runs_on_the_meta_device():
    with torch.device("meta"):
        model = create_model("botnet_tiny", attention_impl="chunked").eval()
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
