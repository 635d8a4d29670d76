"""DETR against Transformers' own model, and its losses against a search of all matchings."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, generalized_box_iou

from botvision.detection import detr
from botvision.tasks.detection.detectors.detr_losses import set_losses

SMALL = {
    "image_size": 128,
    "num_queries": 7,
    "hidden_dim": 32,
    "num_heads": 4,
    "dim_feedforward": 48,
    "encoder_layers": 2,
    "decoder_layers": 3,
}
NAMES = {
    "backbone.body.": "model.backbone.model.",
    "projection.": "model.input_projection.",
    "encoder.": "model.encoder.",
    "queries.": "model.query_position_embeddings.",
    "decoder.": "model.decoder.",
    "class_head.": "class_labels_classifier.",
    "box_head.": "bbox_predictor.",
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_is_the_detr_of_transformers():
    from transformers import DetrConfig, DetrForObjectDetection, TimmBackboneConfig

    ours = detr("botnet_tiny", 4, **SMALL).eval()
    theirs = DetrForObjectDetection(
        DetrConfig(
            backbone_config=TimmBackboneConfig(backbone="botnet_tiny", out_indices=[4]),
            num_queries=7,
            d_model=32,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            encoder_layers=2,
            decoder_layers=3,
            num_labels=3,
        )
    ).eval()
    state = {}
    for name, value in ours.state_dict().items():
        (prefix,) = [prefix for prefix in NAMES if name.startswith(prefix)]
        if not name.endswith("num_batches_tracked"):
            state[NAMES[prefix] + name.removeprefix(prefix)] = value
    theirs.load_state_dict(state)

    sizes = [(128, 128), (96, 128), (128, 40)]
    pixels, mask = torch.zeros(3, 3, 128, 128), torch.zeros(3, 128, 128, dtype=torch.int64)
    images = [torch.rand(3, *size) for size in sizes]
    mean, std = (torch.tensor(v)[:, None, None] for v in (ours.backbone.mean, ours.backbone.std))
    for place, shown, image, (height, width) in zip(pixels, mask, images, sizes, strict=True):
        place[:, :height, :width] = (image - mean) / std
        shown[:height, :width] = 1
    with torch.no_grad():
        expected = theirs(pixel_values=pixels, pixel_mask=mask)
        found = ours(images)
    for number, (height, width) in enumerate(sizes):
        scores, order = (
            expected.logits[number].softmax(-1)[:, :-1].max(-1).values.sort(descending=True)
        )
        assert torch.allclose(found[number]["scores"], scores, atol=1e-5)
        corners = box_convert(expected.pred_boxes[number, order], "cxcywh", "xyxy")
        limits = torch.tensor([width, height, width, height])
        assert torch.allclose(found[number]["boxes"], (corners.clamp(0, 1) * limits), atol=1e-3)


def test_every_layer_of_the_decoder_is_trained_on_what_it_gives():
    # Transformers' own auxiliary loss changes what the next layer gets; the authors' does not.
    detector = detr("botnet_tiny", 4, dropout=0.0, **SMALL).train()
    for module in detector.backbone.modules():
        module.training = False  # the same statistics in every call
    for parameter in detector.decoder.layernorm.parameters():  # else it changes nothing
        torch.nn.init.uniform_(parameter)
    batch, _ = detector.transform([torch.rand(3, 128, 128)])
    layers = detector.decoder.layers
    with torch.no_grad():
        states = detector._decode(batch)
        assert len(states) == 3
        for count, expected in enumerate(states, start=1):
            detector.decoder.layers = layers[:count]
            assert torch.allclose(detector._decode(batch)[-1], expected, atol=1e-5)


def by_search(logits, boxes, target):
    """The three losses of one image by the definition: the cheapest of all matchings."""
    classes, wanted = target["class_labels"], target["boxes"]
    corners, wanted_corners = (box_convert(each, "cxcywh", "xyxy") for each in (boxes, wanted))
    overlap = generalized_box_iou(corners, wanted_corners)
    distance = (boxes[:, None] - wanted).abs().sum(-1)
    cost = 5 * distance - logits.softmax(-1)[:, classes] - 2 * overlap
    columns = range(len(classes))
    best = min(
        itertools.permutations(range(len(logits)), len(classes)),
        key=lambda rows: sum(float(cost[row, column]) for row, column in zip(rows, columns)),  # noqa: B905
    )
    labels = torch.full((len(logits),), logits.shape[-1] - 1)
    labels[list(best)] = classes
    chosen = list(best), list(columns)
    return labels, distance[chosen].sum(), (1 - overlap[chosen]).sum()


@pytest.mark.parametrize("counts", [(3,), (2, 0), (3, 1)], ids=str)
def test_losses_by_search(counts):
    logits, boxes = torch.randn(1, len(counts), 5, 4), 0.1 + 0.8 * torch.rand(1, len(counts), 5, 4)
    targets = [
        {"boxes": 0.2 + 0.6 * torch.rand(n, 4), "class_labels": torch.randint(3, (n,))}
        for n in counts
    ]
    found = set_losses(logits, boxes, targets)
    parts = [by_search(*each) for each in zip(logits[0], boxes[0], targets, strict=True)]
    weight = torch.tensor([1.0, 1.0, 1.0, 0.1])
    labels = torch.cat([part[0] for part in parts])
    number = sum(counts)
    expected = {
        "loss_classifier": F.cross_entropy(logits[0].flatten(0, 1), labels, weight),
        "loss_box_reg": 5 * sum(part[1] for part in parts) / number,
        "loss_giou": 2 * sum(part[2] for part in parts) / number,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-5), name


def test_auxiliary_loss_is_that_of_the_other_layers():
    logits, boxes = torch.randn(3, 2, 5, 4), 0.1 + 0.8 * torch.rand(3, 2, 5, 4)
    targets = [
        {"boxes": 0.2 + 0.6 * torch.rand(2, 4), "class_labels": torch.tensor([0, 2])}
        for _ in range(2)
    ]
    found = set_losses(logits, boxes, targets)
    single = [
        set_losses(logits[layer : layer + 1], boxes[layer : layer + 1], targets)
        for layer in range(3)
    ]
    for name in single[-1]:
        assert torch.allclose(found[name], single[-1][name])
    others = sum(sum(losses.values()) for losses in single[:-1])
    assert torch.allclose(found["loss_auxiliary"], others)


def test_box_losses_are_divided_by_the_mean_over_the_processes(monkeypatch):
    # Gradients are averaged, so that the losses of all are those of one batch of all images.
    import botvision.tasks.detection.detectors.detr_losses as detr_losses

    logits, boxes = torch.randn(1, 1, 5, 4), 0.1 + 0.8 * torch.rand(1, 1, 5, 4)
    targets = [{"boxes": 0.2 + 0.6 * torch.rand(3, 4), "class_labels": torch.tensor([0, 2, 1])}]
    alone = set_losses(logits, boxes, targets)

    def with_another_of_one_object(tensor, reduction):
        assert (float(tensor), reduction) == (3.0, "mean")
        return (tensor + 1) / 2

    monkeypatch.setattr(detr_losses, "reduce", with_another_of_one_object)
    together = set_losses(logits, boxes, targets)
    for name, factor in {"loss_classifier": 1, "loss_box_reg": 1.5, "loss_giou": 1.5}.items():
        assert torch.allclose(together[name], factor * alone[name])
