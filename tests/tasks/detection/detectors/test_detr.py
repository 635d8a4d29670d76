"""DETR as a torchvision detector: what goes in, what comes out, what is trained."""

import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

import botvision
from botvision.detection import detr, mask_rcnn
from botvision.errors import BotvisionError
from botvision.tasks.detection.build import build_detector, load_backbone_weights
from botvision.tasks.detection.settings import DetrSettings
from botvision.weights.file import save_weights

SMALL = {
    "image_size": 64,
    "num_queries": 7,
    "hidden_dim": 32,
    "num_heads": 4,
    "dim_feedforward": 48,
    "encoder_layers": 2,
    "decoder_layers": 3,
}
LOSSES = {"loss_classifier", "loss_box_reg", "loss_giou"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def trained():
    """A detector whose normalization has seen images, so that outputs differ by image."""
    torch.manual_seed(0)
    detector = detr("botnet_tiny", 4, **SMALL)
    for module in detector.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # the last of a block starts at zero
            nn.init.uniform_(module.weight, 0.5, 1.5)
    detector.train()
    with torch.no_grad():
        for _ in range(3):
            detector([torch.rand(3, 64, 64)] * 4, [target(0)] * 4)
    return detector.eval()


def target(count, offset=0.0):
    boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 20.0, 60.0, 44.0]])[:count] + offset
    return {"boxes": boxes.reshape(-1, 4), "labels": torch.tensor([1, 3])[:count]}


@pytest.mark.parametrize("backbone", ["botnet_tiny", "resnet18"])
def test_detections(backbone):
    detector = detr(backbone, 4, **SMALL).eval()
    sizes = [(64, 64), (37, 91), (200, 30), (1, 1)]
    with torch.no_grad():
        outputs = detector([torch.rand(3, *size) for size in sizes])
    for (height, width), output in zip(sizes, outputs, strict=True):
        assert output["boxes"].shape == (7, 4)
        assert output["boxes"].min() >= 0
        assert output["boxes"][:, 0::2].max() <= width
        assert output["boxes"][:, 1::2].max() <= height
        # Untrained, every box is near the middle: that of this image.
        middle = (output["boxes"][:, :2] + output["boxes"][:, 2:]) / 2
        assert torch.allclose(middle, torch.tensor([width, height]) / 2, rtol=0.6)
        assert set(output["labels"].tolist()) <= {1, 2, 3}
        assert (output["scores"].diff() <= 0).all()
        assert (output["scores"] > 0).all()


@pytest.mark.parametrize("counts", [(0, 0), (2, 0), (2, 1)], ids=str)
@pytest.mark.parametrize("auxiliary", [True, False])
def test_losses_are_finite_and_every_parameter_has_a_gradient(counts, auxiliary):
    detector = detr("botnet_tiny", 4, auxiliary_loss=auxiliary, **SMALL).train()
    losses = detector([torch.rand(3, 64, 64) for _ in counts], [target(n) for n in counts])
    assert set(losses) == LOSSES | ({"loss_auxiliary"} if auxiliary else set())
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())


def test_the_whole_backbone_trains(trained):
    # Transformers would freeze every BatchNorm, and the stem and first stage of a ResNet.
    detector = detr("botnet_tiny", 4, **SMALL).train()
    norms = [m for m in detector.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 20
    assert all(parameter.requires_grad for parameter in detector.parameters())
    before = [norm.running_mean.clone() for norm in norms]
    losses = detector([torch.rand(3, 64, 64)] * 2, [target(2)] * 2)
    assert not any(
        torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True)
    )
    sum(losses.values()).backward()
    moved = {n for n, p in detector.backbone.named_parameters() if p.grad.abs().max() > 0}
    assert {"body.conv1.0.weight", "body.layer4.0.bn3.weight"} <= moved
    before = trained.state_dict()
    copies = {name: value.clone() for name, value in before.items()}
    with torch.no_grad():
        trained([torch.rand(3, 64, 64)])
    assert all(torch.equal(value, copies[name]) for name, value in before.items())


def test_weights_are_drawn_as_the_authors_draw_them():
    detector = detr("botnet50", 4, image_size=64)
    state = detector.state_dict()
    assert state["queries.weight"].std() == pytest.approx(1, rel=0.05)
    expected = (2 / (256 + 2048)) ** 0.5
    for part in ("encoder", "decoder"):
        assert state[f"{part}.layers.5.mlp.fc1.weight"].std() == pytest.approx(expected, rel=0.05)
    # The backbone's are its own: the last normalization of a block starts at zero.
    assert state["backbone.body.layer4.2.bn3.weight"].abs().max() == 0
    body = botvision.create_model("botnet50", img_size=64).state_dict()
    stem = "conv1.weight"
    assert state[f"backbone.body.{stem}"].std() == pytest.approx(float(body[stem].std()), rel=0.1)


def test_an_image_is_seen_alike_alone_and_in_a_batch(trained):
    images = [torch.rand(3, *size) for size in [(64, 64), (40, 64), (33, 21), (100, 7)]]
    with torch.no_grad():
        together = trained(images)
        alone = [trained([image])[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        for name, value in one.items():
            assert torch.allclose(value, other[name], atol=1e-4), name
    # And they are seen: other images give other boxes.
    assert not torch.allclose(alone[0]["boxes"] / 64, alone[2]["boxes"] / 21, atol=1e-3)


def test_padding_is_not_looked_at(trained):
    image = torch.rand(3, 30, 64)  # of the two rows of the map only the first shows image
    with torch.no_grad():
        expected = trained([image])[0]

        def spoil(module, inputs, maps):
            assert maps.shape[-2:] == (2, 2)
            return torch.cat([maps[:, :, :1], torch.randn_like(maps[:, :, 1:])], dim=2)

        hook = trained.backbone.register_forward_hook(spoil)
        try:
            found = trained([image])[0]
        finally:
            hook.remove()
    assert torch.allclose(found["boxes"], expected["boxes"], atol=1e-4)
    assert torch.allclose(found["scores"], expected["scores"], atol=1e-5)


def test_training_pads_but_does_not_enlarge():
    # The augmentation has drawn the scale; only what is too large is made smaller.
    detector = detr("botnet_tiny", 4, **SMALL).train()
    given = [target(2), target(1)]
    images = [torch.ones(3, 24, 32), torch.ones(3, 128, 96)]
    batch, targets = detector.transform(images, given)
    assert batch.tensors.shape == (2, 3, 64, 64)
    assert batch.image_sizes == [(24, 32), (64, 48)]
    assert torch.equal(targets[0]["boxes"], given[0]["boxes"])
    assert torch.equal(targets[1]["boxes"], given[1]["boxes"] / 2)
    assert (batch.tensors[0, :, 24:] == 0).all()
    batch, _ = detector.eval().transform([torch.ones(3, 24, 32)])
    assert batch.image_sizes == [(48, 64)]


def test_targets_are_needed_in_training():
    with pytest.raises(ValueError, match=r"targets: expected boxes and labels in training"):
        detr("botnet_tiny", 4, **SMALL).train()([torch.rand(3, 64, 64)])


def test_coordinates_scores_and_losses_are_float32_under_autocast(trained):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (output,) = trained([torch.rand(3, 64, 64)])
        losses = detr("botnet_tiny", 4, **SMALL).train()([torch.rand(3, 64, 64)], [target(2)])
    assert output["boxes"].dtype == output["scores"].dtype == torch.float32
    assert not torch.equal(output["boxes"], output["boxes"].bfloat16().float())
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_double_precision_stays_double():
    detector = detr("botnet_tiny", 4, **SMALL).double()
    image = torch.rand(3, 64, 50, dtype=torch.float64)
    with_boxes = {"boxes": target(2)["boxes"].double(), "labels": target(2)["labels"]}
    losses = detector([image], [with_boxes])
    assert {loss.dtype for loss in losses.values()} == {torch.float64}
    with torch.no_grad():
        (output,) = detector.eval()([image])
    assert output["boxes"].dtype == output["scores"].dtype == torch.float64


def test_weights_that_are_no_numbers_make_a_loss_that_is_none():
    detector = detr("botnet_tiny", 4, **SMALL).train()
    nn.init.constant_(detector.projection.bias, float("nan"))
    losses = detector([torch.rand(3, 64, 64)], [target(2)])
    assert not torch.isfinite(losses["loss_box_reg"])


def test_sizes_obey_the_arguments():
    state = detr("botnet_tiny", 4, **SMALL).state_dict()
    assert state["queries.weight"].shape == (7, 32)
    assert state["class_head.weight"].shape == (4, 32)
    assert state["encoder.layers.1.mlp.fc1.weight"].shape == (48, 32)
    assert state["decoder.layers.2.mlp.fc1.weight"].shape == (48, 32)
    assert not [n for n in state if n.startswith(("encoder.layers.2", "decoder.layers.3"))]


def test_published_size():
    # 41.3M with a ResNet-50 and 91 classes (Carion et al. 2020, table 1).
    with torch.device("meta"):
        detector = detr("resnet50", 92)
    count = sum(parameter.numel() for parameter in detector.parameters())
    assert count == pytest.approx(41.3e6, rel=0.01)


def test_backbone_arguments_reach_the_network():
    detector = detr("botnet_tiny", 3, backbone_arguments={"position": "none"}, **SMALL)
    assert not [name for name in detector.state_dict() if "position" in name]
    fine = detr("botnet_tiny", 3, backbone_arguments={"output_stride": 16}, **SMALL).eval()
    with torch.no_grad():
        assert fine.backbone(torch.zeros(1, 3, 64, 64)).shape[-2:] == (4, 4)


@pytest.mark.parametrize(("hidden_dim", "num_heads"), [(30, 5), (32, 5)])
def test_width_that_does_not_fit(hidden_dim, num_heads):
    with pytest.raises(ValueError, match=rf"hidden_dim: .*4 and of 5 heads, got {hidden_dim}"):
        detr("botnet_tiny", 3, hidden_dim=hidden_dim, num_heads=num_heads)


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(BotvisionError, match=r"model\.backbone botnt50: .*botnet50"):
        build_detector(DetrSettings(backbone="botnt50"), 4)


def test_backbone_of_a_mask_rcnn(tmp_path):
    detector = detr("botnet_tiny", 4, **SMALL)
    source = mask_rcnn("botnet_tiny", 9, image_size=64, fpn_channels=8)
    save_weights(tmp_path / "backbone.safetensors", source)
    load_backbone_weights(detector, tmp_path / "backbone.safetensors")
    expected = source.get_submodule("backbone.body").state_dict()
    found = detector.get_submodule("backbone.body").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("missing", ["transformers", "scipy.optimize"])
def test_missing_package_names_the_extra(missing, monkeypatch, cli, handwriting, tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BotvisionError, match=rf"{missing} is missing; .*'botvision\[detr\]'"):
        detr("botnet_tiny", 4, **SMALL)
    status, out, error = cli(
        *("train", "botnet50_detr", "--data", handwriting, "--runs", tmp_path),
        *("--set", "model.backbone=botnet_tiny"),
    )
    assert (status, out) == (2, "")
    assert error == f"error: detector detr: {missing} is missing; pip install 'botvision[detr]'\n"
    assert list(tmp_path.iterdir()) == []


def test_no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked for")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    detector = detr("resnet50", 4, **SMALL).eval()
    with torch.no_grad():
        detector([torch.rand(3, 64, 64)])


def test_transformers_is_imported_only_when_used():
    program = "import sys, botvision.detection; sys.exit('transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
