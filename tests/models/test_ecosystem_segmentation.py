"""Semantic segmentation: segmentation-models-pytorch over our networks, as ``tu-`` encoders."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

import botvision.models  # noqa: F401  # registers the models with timm

NARROW = {"img_size": 64, "layers": (1, 1, 1, 2), "zero_init_last": False}
CLASSES = 4


def image(height=64, width=96):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, height, width, generator=generator)


def loss_of(model, criterion):
    x = image().double()
    logits = model(x)
    assert logits.shape == (2, CLASSES, *x.shape[2:])
    return criterion(logits, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long())


def without_dropout(model):
    """In training and in float64, but the same batch has the same loss."""
    model.double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.eval()
    return model


def build(architecture, encoder="tu-botnet_tiny", **options):
    torch.manual_seed(0)
    return architecture(encoder, encoder_weights=None, classes=CLASSES, **options)


@pytest.mark.parametrize("position", ["relative", "absolute", "none"])
@pytest.mark.parametrize("architecture", [smp.Unet, smp.FPN, smp.UPerNet])
def test_decoders(architecture, position, assert_descends):
    model = build(architecture, **NARROW, position=position)
    criterion = smp.losses.DiceLoss("multiclass")
    assert_descends(without_dropout(model).encoder, lambda: loss_of(model, criterion))
    labels = model.predict(image().double()).argmax(1)
    assert labels.shape == (2, 64, 96)


@pytest.mark.parametrize("stride", [8, 16])
def test_decoder_of_dilated_features(stride, assert_descends):
    # S1 and finer: the decoder asks the encoder for another output stride.
    model = build(smp.DeepLabV3Plus, encoder_output_stride=stride, **NARROW)
    strides = [image().shape[2] // feature.shape[2] for feature in model.encoder(image())]
    assert strides == [1, 2, 4, 8, stride, stride]
    criterion = smp.losses.DiceLoss("multiclass")
    assert_descends(without_dropout(model).encoder, lambda: loss_of(model, criterion))


def test_botnet50(assert_descends):
    model = build(smp.Unet, "tu-botnet50", img_size=64, zero_init_last=False)
    assert model.encoder.out_channels == [3, 64, 256, 512, 1024, 2048]
    criterion = nn.CrossEntropyLoss()
    assert_descends(without_dropout(model).encoder, lambda: loss_of(model, criterion))
