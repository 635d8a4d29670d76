"""Attention maps of a pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

import botvision
from botvision.attention import MultiHeadSelfAttention2d
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.tasks.attention_maps import attention_maps, draw_attention_maps
from botvision.tasks.detection.build import build_detector
from botvision.weights.file import save_weights


@pytest.fixture
def image(val_image):
    return read_image(val_image)


def test_maps_are_probabilities(predictor, image):
    maps = attention_maps(predictor, image, (10, 50))
    layers = [
        name
        for name, module in predictor.model.named_modules()
        if isinstance(module, MultiHeadSelfAttention2d)
    ]
    assert [each.layer for each in maps] == layers
    assert [tuple(each.heads.shape) for each in maps] == [(4, 4, 4), (4, 2, 2)]
    for each in maps:
        assert each.heads.dtype == torch.float32
        assert (each.heads >= 0).all()
        assert torch.allclose(each.heads.sum((1, 2)), torch.ones(4), atol=1e-2)  # bfloat16


@pytest.mark.parametrize(
    ("at", "place"), [((0, 0), (0, 0)), ((63, 15), (0, 3)), ((31, 32), (2, 1))]
)
def test_the_pixel_is_the_one_asked_for(at, place, predictor, image):
    (first, *_) = attention_maps(predictor, image, at)
    layer = predictor.model.get_submodule(first.layer)
    seen = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    predictor.predict([image], threshold=1.0)
    hook.remove()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = layer.attention_map(seen[0], *place)[0].float()
    assert torch.equal(first.heads, expected)


def test_hooks_are_taken_away(predictor, image):
    before = [len(module._forward_pre_hooks) for module in predictor.model.modules()]
    attention_maps(predictor, image, (0, 0))
    assert [len(module._forward_pre_hooks) for module in predictor.model.modules()] == before


def test_padding_is_cut_off(predictor):
    # Twice as wide as high: the lower half of the square is padding.
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 160, 3), np.uint8))
    (first, *_) = attention_maps(predictor, image, (159, 39))
    assert first.heads.shape == (4, 1, 4)
    assert (first.heads.sum((1, 2)) < 1).all()


@pytest.mark.parametrize("at", [(64, 0), (0, 64), (-1, 0), (0, -1)])
def test_pixel_outside(at, predictor, image):
    with pytest.raises(BotvisionError, match="expected one of the 64 x 64 image"):
        attention_maps(predictor, image, at)


def test_model_without_attention(make_recipe, describe_detector, image, tmp_path):
    recipe = make_recipe("model.backbone=resnet18")
    model = build_detector(recipe.model, 2)
    save_weights(tmp_path / "w.safetensors", model, describe_detector(recipe))
    predictor = botvision.load(tmp_path / "w.safetensors")
    with pytest.raises(BotvisionError, match=r"resnet18: expected a network with attention$"):
        attention_maps(predictor, image, (0, 0))


def test_drawing(predictor, image, tmp_path):
    path = tmp_path / "attention.png"
    draw_attention_maps(image, (10, 50), attention_maps(predictor, image, (10, 50)), path)
    with Image.open(path) as drawn:
        assert drawn.width > drawn.height
        assert len(drawn.convert("RGB").getcolors(1 << 24)) > 100
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def classifier(classifier_run):
    return botvision.load(classifier_run.best)


def of_classifier(classifier, image, place):
    """The first layer's map at a place of it, by a forward pass of our own."""
    name, layer = next(
        (name, module)
        for name, module in classifier.model.named_modules()
        if isinstance(module, MultiHeadSelfAttention2d)
    )
    seen = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    classifier.probabilities([image])
    hook.remove()
    rows, columns = seen[0].shape[2:]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=True):
        heads = layer.attention_map(seen[0], int(place[1] * rows), int(place[0] * columns))
    return name, heads[0].float()


@pytest.mark.parametrize(
    ("size", "at", "place"),
    [((32, 32), (1, 30), (0.0, 0.95)), ((90, 60), (44, 2), (0.49, 0.04))],
)
def test_classifiers_look_at_the_middle(size, at, place, classifier):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    (first, *_) = attention_maps(classifier, image, at)
    assert classifier.description.input.crop == 1
    left = (size[0] - size[1]) / 2
    assert first.box == (left, 0, left + size[1], size[1])
    name, expected = of_classifier(classifier, image, place)
    assert first.layer == name
    assert torch.equal(first.heads, expected)


@pytest.mark.parametrize("width", [90, 91])
def test_pixel_that_a_classifier_does_not_see(width, classifier, tmp_path):
    image = Image.new("RGB", (width, 60))
    expected = r"pixel {},0: expected one of the part .* x from 15 to 74 and y from 0 to 59$"
    for x in (14, 75):
        with pytest.raises(BotvisionError, match=expected.format(x)):
            attention_maps(classifier, image, (x, 0))
    attention_maps(classifier, image, (74, 59))
    maps = attention_maps(classifier, image, (15, 0))
    draw_attention_maps(image, (15, 0), maps, tmp_path / "attention.png")
    with Image.open(tmp_path / "attention.png") as drawn:
        assert drawn.width > 300


def test_classifier_without_attention(train_classifier):
    predictor = botvision.load(train_classifier("model.classifier=resnet26").best)
    with pytest.raises(BotvisionError, match=r"^resnet26: expected a network with attention$"):
        attention_maps(predictor, Image.new("RGB", (32, 32)), (0, 0))
