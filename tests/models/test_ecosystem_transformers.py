"""Transformers' ``TimmBackbone`` around our networks: what its detectors and segmenters take."""

import pytest
import timm
import torch
import transformers
from torch import nn
from torch.testing import assert_close

import botvision.models  # noqa: F401  # registers the models with timm

NARROW = {"img_size": 64, "layers": (1, 1, 1, 2), "zero_init_last": False}


def image():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 64, 96, generator=generator)


def build(*, out_indices=(1, 2, 3, 4), output_stride=None, **options):
    """What the configuration has no word for goes to timm as keywords."""
    config = transformers.TimmBackboneConfig(
        backbone="botnet_tiny", out_indices=list(out_indices), output_stride=output_stride
    )
    torch.manual_seed(0)
    return transformers.TimmBackbone(config, **NARROW, **options)


def test_features_are_those_of_timm(variant):
    backbone = build(**variant).eval()
    torch.manual_seed(0)
    network = timm.create_model(
        "botnet_tiny", features_only=True, out_indices=(1, 2, 3, 4), **NARROW, **variant
    ).eval()
    network.load_state_dict(backbone._backbone.state_dict())
    features = backbone(image()).feature_maps
    assert_close(list(features), network(image()), rtol=0, atol=0)
    assert backbone.channels == [128, 256, 512, 1024]
    strides = [64 // feature.shape[2] for feature in features]
    assert strides == [4, 8, 16, variant.get("output_stride", 32)]


def test_training(variant, assert_descends):
    backbone = build(**variant).double().train()
    x = image().double()

    def loss():
        return sum(each.square().mean() for each in backbone(x).feature_maps)

    assert_descends(backbone, loss)


def test_initialization_is_left_alone():
    # Transformers initializes what it knows again after building a model.
    attention = build()._backbone.layer4[1].conv2.attention
    assert attention.qkv.weight.std().item() == pytest.approx(attention.dim**-0.5, rel=0.02)
    d = attention.dim // attention.num_heads
    assert attention.position.height.std().item() == pytest.approx(d**-0.5, rel=0.15)


def test_last_stage_alone():
    backbone = build(out_indices=(4,)).eval()
    (feature,) = backbone(image()).feature_maps
    assert feature.shape == (2, 1024, 2, 3)
    everything = build(out_indices=range(5)).eval()(image()).feature_maps
    assert torch.equal(everything[4], feature)


def test_frozen_normalization():
    # Transformers' DETR freezes every batch normalization; the attention still learns.
    config = transformers.TimmBackboneConfig(
        backbone="botnet_tiny", out_indices=[4], freeze_batch_norm_2d=True
    )
    torch.manual_seed(0)
    backbone = transformers.TimmBackbone(config, **NARROW).train()
    assert not [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    backbone(image()).feature_maps[0].square().mean().backward()
    attention = backbone._backbone.layer4[0].conv2.attention
    for name, parameter in attention.named_parameters():
        assert parameter.grad.any(), name


def test_any_model_of_the_config_by_name():
    # `pretrained` stays off, so nothing is fetched.
    config = transformers.TimmBackboneConfig(backbone="botnet50", out_indices=[1, 4])
    with torch.device("meta"):
        backbone = transformers.TimmBackbone(config)
        shapes = [f.shape[1:] for f in backbone(torch.zeros(1, 3, 64, 64)).feature_maps]
    assert shapes == [(256, 16, 16), (2048, 2, 2)]
