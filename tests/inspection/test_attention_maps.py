"""Attention maps of a pixel and of an instance, their roll-out, and their figure."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import botvision
from botvision.attention import MultiHeadSelfAttention2d
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.inspection.attention_maps import (
    AttentionMap,
    AttentionRollout,
    attention_maps,
    attention_of_instance,
    attention_of_pixel,
    draw_attention_maps,
)
from botvision.supervision_import import import_supervision
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
    assert first.box == (0, 0, 160, 40)


def test_cells_that_show_little_of_the_image_are_kept(predictor):
    # 64 x 40 pixels on a map of 4 x 4 cells of 16: half of the third row is padding.
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8))
    seen = attention_of_pixel(predictor, image, (63, 39))
    assert [tuple(each.heads.shape) for each in seen.maps] == [(4, 3, 4), (4, 2, 2)]
    assert [each.box for each in seen.maps] == [(0, 0, 64, 48), (0, 0, 64, 64)]
    assert (seen.rollout.map.shape, seen.rollout.box) == ((3, 4), (0, 0, 64, 48))


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


def test_maps_with_a_roll_out_are_those_without(predictor, image):
    seen = attention_of_pixel(predictor, image, (10, 50))
    assert seen.at == (10, 50)
    for one, other in zip(seen.maps, attention_maps(predictor, image, (10, 50)), strict=True):
        assert (one.layer, one.box) == (other.layer, other.box)
        assert torch.equal(one.heads, other.heads)
        assert torch.equal(one.mean, one.heads.mean(0))


def test_roll_out_is_the_product_of_the_layers(predictor, image):
    # Layers of 4 x 4 and 2 x 2 cells, pooled in between.
    seen = attention_of_pixel(predictor, image, (10, 50))
    whole = []
    for side in (4, 2):
        cell = 64 // side
        rows = [
            maps[len(whole)].mean.flatten().double()
            for row in range(side)
            for column in range(side)
            for maps in [attention_maps(predictor, image, (column * cell, row * cell))]
        ]
        whole.append(0.5 * torch.stack(rows) + 0.5 * torch.eye(side**2))
    pool = torch.zeros(4, 16, dtype=torch.float64)
    for cell in range(16):
        pool[cell // 8 * 2 + cell % 4 // 2, cell] = 0.25
    expected = whole[1][2] @ pool @ whole[0]  # the pixel lies in the lower left of the 2 x 2
    torch.testing.assert_close(seen.rollout.map.flatten(), expected.float(), rtol=1e-5, atol=1e-6)
    assert seen.rollout.layers == tuple(each.layer for each in seen.maps)


@pytest.fixture
def with_masks(predictor, monkeypatch):
    """A function that gives the predictor's detections other masks; its own are empty."""
    predict = type(predictor).predict

    def change(masks, *, dense=False):
        def predicted(self, *arguments, **options):
            (found,) = predict(self, *arguments, **options)
            if not len(found.xyxy):  # a pixel's maps need no detections
                return [found]
            if masks is not None:
                boxes = np.tile(np.array([[0.0, 0.0, 63.0, 63.0]]), (len(masks), 1))
                compact = import_supervision().CompactMask.from_dense(masks, boxes, (64, 64))
            return [replace(found, mask=masks if masks is None or dense else compact)]

        monkeypatch.setattr(type(predictor), "predict", predicted)

    return change


@pytest.mark.parametrize("dense", [False, True], ids=["compact", "dense"])
def test_instance_is_the_mean_of_its_pixels(dense, predictor, image, with_masks):
    (found,) = predictor.predict([image], threshold=0.0)
    masks = np.random.default_rng(0).random((10, 64, 64)) < 0.3
    masks[3, :20] = masks[3, :, 40:] = False
    with_masks(masks, dense=dense)
    seen = attention_of_instance(predictor, image, 3, threshold=0.0)
    assert seen.at.index == 3
    assert seen.at.score == found.confidence[3]
    assert seen.at.name == found.data["class_name"][3]
    assert seen.at.has_mask
    # Pixels of one cell of the finest map, of 16 pixels a side, look alike.
    cells = Counter((int(x) // 16, int(y) // 16) for y, x in np.argwhere(masks[3]))
    assert len(cells) == 9
    weights = torch.tensor([*cells.values()]) / masks[3].sum()
    each = [attention_of_pixel(predictor, image, (16 * x + 5, 16 * y + 9)) for x, y in cells]

    def mean(tensors):
        return torch.einsum("n,n...->...", weights, torch.stack(tensors))

    for number, layer in enumerate(seen.maps):
        expected = mean([one.maps[number].heads for one in each])
        torch.testing.assert_close(layer.heads, expected, rtol=1e-4, atol=1e-6)
    expected = mean([one.rollout.map for one in each])
    torch.testing.assert_close(seen.rollout.map, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("masks", [None, np.zeros((10, 64, 64), np.bool_)], ids=["none", "empty"])
def test_instance_without_a_mask_is_that_of_its_box(masks, predictor, image, with_masks):
    (found,) = predictor.predict([image], threshold=0.0)
    with_masks(masks)
    seen = attention_of_instance(predictor, image, 0, threshold=0.0)
    assert not seen.at.has_mask
    assert seen.at.box == tuple(found.xyxy[0].tolist())
    assert seen.at.pixels.window.all()
    assert abs(seen.at.pixels.window.shape[1] - (seen.at.box[2] - seen.at.box[0])) < 2


@pytest.mark.parametrize(
    ("index", "threshold", "expected"),
    [
        (10, 0.0, r"^instance 10: expected 0 to 9, as there are 10 detections at threshold 0$"),
        (-1, 0.0, r"^instance -1: expected 0 to 9, as there are 10 detections"),
        (0, None, r"^instance 0: .*, got no detections at threshold 0.5; lower it$"),
    ],
)
def test_instance_that_is_none(index, threshold, expected, predictor, image):
    with pytest.raises(BotvisionError, match=expected):
        attention_of_instance(predictor, image, index, threshold=threshold)


def test_the_only_detection(predictor, image):
    (found,) = predictor.predict([image], threshold=0.0)
    best = float(found.confidence[0])
    with pytest.raises(BotvisionError, match=r"expected 0, as there is 1 detection at threshold"):
        attention_of_instance(predictor, image, 1, threshold=best)


def test_classifiers_find_no_instances(classifier, image):
    with pytest.raises(BotvisionError, match=r"^instance 0: expected a detector, .*classification"):
        attention_of_instance(classifier, image, 0)


def test_non_local_network(train_classifier, image):
    narrow = {"stem_type": "deep", "stem_width": 4, "channels": [8] * 4, "layers": [1, 1, 2, 1]}
    run = train_classifier(
        "model.classifier=resnet50_nl_c4",
        f"model.classifier_arguments={json.dumps(narrow)}",
        "training.epochs=1",
        "training.warmup_steps=1",
    )
    predictor = botvision.load(run.best)
    seen = attention_of_pixel(predictor, image, (10, 50))
    (layer,) = seen.maps
    assert layer.layer == "layer3.0_inserted"
    assert len(layer.heads) == 1
    expected = 0.5 * layer.heads[0]
    expected[int(50.5 / 64 * len(expected)), int(10.5 / 64 * len(expected))] += 0.5
    torch.testing.assert_close(seen.rollout.map, expected)


@pytest.mark.parametrize("masks", [None, np.ones((10, 64, 64), np.bool_)], ids=["box", "mask"])
def test_drawing_an_instance(masks, predictor, image, with_masks, tmp_path):
    path = tmp_path / "attention.png"
    with_masks(masks)
    seen = attention_of_instance(predictor, image, 0, threshold=0.0)
    draw_attention_maps(image, seen.at, seen.maps, path, rollout=seen.rollout)
    with Image.open(path) as drawn:
        colors = np.asarray(drawn.convert("RGB")).reshape(-1, 3)
    assert ((colors == (0, 229, 255)).all(1)).sum() > 50  # its outline


@pytest.mark.parametrize(
    ("size", "layers", "heads"),
    [
        ((30, 900), 3, 2),
        ((900, 30), 2, 1),
        ((4000, 3000), 1, 16),
        ((64, 64), 12, 4),
        ((2, 2), 1, 1),
    ],
    ids=str,
)
def test_drawing_any_shape(size, layers, heads, tmp_path):
    path = tmp_path / "attention.png"
    box = (0.0, 0.0, float(size[0]), float(size[1]))
    uniform = torch.full((heads, 3, 4), 1 / 12)
    maps = [AttentionMap(f"layer4.{each}.conv2.attention", uniform, box) for each in range(layers)]
    rollout = AttentionRollout(tuple(each.layer for each in maps), uniform[0], box)
    draw_attention_maps(Image.new("RGB", size, "white"), (1, 1), maps, path, rollout=rollout)
    with Image.open(path) as drawn:
        assert 300 < drawn.width < 7000
        assert 200 < drawn.height < 10000


def test_uniform_attention_leaves_the_image_bare(tmp_path):
    def colored(scores):
        heads = scores.flatten(1).softmax(1).view_as(scores)
        maps = [AttentionMap("layer4.0.conv2.attention", heads, (0.0, 0.0, 64.0, 64.0))]
        path = tmp_path / "attention.png"
        draw_attention_maps(Image.new("RGB", (64, 64), "white"), (1, 1), maps, path)
        with Image.open(path) as drawn:
            pixels = np.asarray(drawn.convert("RGB")).astype(int)[120:]  # below the color scale
        return int((pixels[..., 0] - pixels[..., 2] > 60).sum())  # orange and yellow

    assert colored(torch.zeros(1, 4, 4)) == 0
    peak = torch.zeros(1, 4, 4)
    peak[0, 2, 1] = 4
    assert colored(peak) > 1000


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
