"""Mask R-CNN and Faster R-CNN over our networks and timm's."""

import pytest
import torch
from torch import nn

import botvision
from botvision.detection import faster_rcnn, mask_rcnn
from botvision.errors import BotvisionError
from botvision.tasks.detection.build import build_detector, load_backbone_weights
from botvision.tasks.detection.detectors.backbone import PyramidBackbone
from botvision.tasks.detection.settings import RcnnSettings
from botvision.weights.file import save_weights

SMALL = {
    "image_size": 64,
    "fpn_channels": 16,
    "box_head_width": 24,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
    "box_detections_per_img": 10,
    "box_score_thresh": 0.0,
}
MASKS = {"mask_head_channels": 8, "mask_head_layers": 3}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ["botnet_tiny", "botnet50", "resnet18", "resnet26d"])
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (70, 45)])
def test_pyramid_strides(name, size):
    backbone = PyramidBackbone(name, image_size=64, channels=16).eval()
    with torch.no_grad():
        levels = backbone(torch.zeros(1, 3, *size))
    assert list(levels) == ["p2", "p3", "p4", "p5", "p6"]
    for stride, level in zip((4, 8, 16, 32, 64), levels.values(), strict=True):
        assert level.shape == (1, 16, *(-(-side // stride) for side in size))


def test_pyramid_over_a_network_whose_stem_is_no_level():
    # Reductions 4, 8, 16 and 32 as asked for, but none of 2.
    backbone = PyramidBackbone("convnext_atto", image_size=64, channels=16).eval()
    with torch.no_grad():
        levels = backbone(torch.zeros(1, 3, 64, 96))
    assert [level.shape[2:] for level in levels.values()] == [
        (64 // stride, 96 // stride) for stride in (4, 8, 16, 32)
    ] + [(1, 2)]


def test_position_tables_are_made_for_the_image_size():
    small = PyramidBackbone("botnet_tiny", image_size=64).state_dict()
    large = PyramidBackbone("botnet_tiny", image_size=128).state_dict()
    tables = [name for name in small if "position" in name]
    assert tables
    assert all(len(small[name]) < len(large[name]) for name in tables)


def test_backbone_arguments_reach_the_network():
    detector = faster_rcnn("botnet_tiny", 3, backbone_arguments={"position": "none"}, **SMALL)
    assert not [name for name in detector.state_dict() if "position" in name]


@pytest.mark.parametrize(
    ("model", "mean"),
    [("botnet_tiny", (0.485, 0.456, 0.406)), ("resnetv2_50x1_bit", (0.5, 0.5, 0.5))],
)
def test_normalization_is_the_networks(model, mean):
    with torch.device("meta"):
        detector = faster_rcnn(model, 3, **SMALL)
    assert detector.transform.image_mean == list(mean)


@pytest.mark.parametrize("build", [mask_rcnn, faster_rcnn])
@pytest.mark.parametrize("name", ["botnet_tiny", "resnet18"])
def test_outputs_are_in_pixels_of_the_image_given(build, name):
    detector = build(name, 4, **SMALL).eval()
    sizes = [(64, 64), (37, 91), (200, 30), (33, 31)]
    with torch.no_grad():
        outputs = detector([torch.rand(3, *size) for size in sizes])
    for (height, width), output in zip(sizes, outputs, strict=True):
        boxes = output["boxes"]
        assert len(boxes) > 0
        assert boxes.min() >= 0
        assert boxes[:, 0::2].max() <= width
        assert boxes[:, 1::2].max() <= height
        # Noise is found all over the image, so that boxes of the resized one would show.
        assert boxes[:, 2].max() > 0.7 * width
        assert boxes[:, 3].max() > 0.7 * height
        assert set(output["labels"].tolist()) <= {1, 2, 3}
        assert ("masks" in output) == (build is mask_rcnn)
        if build is mask_rcnn:
            assert output["masks"].shape == (len(boxes), 1, height, width)


def targets(masks, count):
    boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 20.0, 60.0, 44.0]])[:count]
    target = {"boxes": boxes.reshape(-1, 4), "labels": torch.tensor([1, 3])[:count]}
    if masks:
        target["masks"] = torch.zeros(count, 64, 64, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(target["masks"], boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
    return target


@pytest.mark.parametrize("build", [mask_rcnn, faster_rcnn])
@pytest.mark.parametrize("counts", [(0, 0), (2, 0), (2, 1)], ids=str)
def test_losses_are_finite_and_every_parameter_has_a_gradient(build, counts):
    detector = build("botnet_tiny", 4, **SMALL).train()
    losses = detector(
        [torch.rand(3, 64, 64) for _ in counts], [targets(build is mask_rcnn, n) for n in counts]
    )
    assert set(losses) == {
        *("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"),
        *(["loss_mask"] if build is mask_rcnn else []),
    }
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    without = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())


def test_head_sizes_obey_the_arguments():
    detector = mask_rcnn("botnet_tiny", 4, anchor_scale=4, **SMALL, **MASKS)
    heads = detector.roi_heads
    assert heads.box_head.fc6.weight.shape == (24, 16 * 49)
    assert heads.box_predictor.cls_score.weight.shape == (4, 24)
    assert heads.box_predictor.bbox_pred.weight.shape == (16, 24)
    convolutions = [m for m in heads.mask_head.modules() if isinstance(m, nn.Conv2d)]
    assert [m.weight.shape[:2] for m in convolutions] == [(8, 16), (8, 8), (8, 8)]
    assert heads.mask_predictor.mask_fcn_logits.weight.shape == (4, 8, 1, 1)
    assert heads.mask_roi_pool.output_size == (14, 14)
    assert heads.box_roi_pool.featmap_names == ["p2", "p3", "p4", "p5"]
    assert detector.rpn.anchor_generator.sizes == ((16,), (32,), (64,), (128,), (256,))
    assert heads.detections_per_img == 10
    assert heads.score_thresh == 0.0


@pytest.mark.parametrize("points", [1, 3])
def test_sampling_ratio_reaches_both_poolings(points):
    heads = mask_rcnn("botnet_tiny", 4, sampling_ratio=points, **SMALL).roi_heads
    assert heads.box_roi_pool.sampling_ratio == heads.mask_roi_pool.sampling_ratio == points


@pytest.mark.parametrize("build", [mask_rcnn, faster_rcnn])
def test_unknown_backbone_names_the_nearest(build):
    with pytest.raises(ValueError, match=r"'botnt50' is unknown; did you mean botnet50"):
        build("botnt50", 4)
    settings = RcnnSettings(detector=build.__name__, backbone="botnt50")
    with pytest.raises(BotvisionError, match=r"model\.backbone botnt50: .*botnet50"):
        build_detector(settings, 4)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "lenet"])
def test_backbone_that_does_not_fit_is_an_error_of_the_user(backbone):
    with pytest.raises(BotvisionError, match=rf"model\.backbone {backbone}: ") as raised:
        build_detector(RcnnSettings(backbone=backbone, **SMALL), 4)
    assert "\n" not in str(raised.value)


def test_unknown_argument_of_the_backbone():
    settings = RcnnSettings(backbone="botnet_tiny", backbone_arguments={"nonsense": 1}, **SMALL)
    with pytest.raises(BotvisionError, match="nonsense"):
        build_detector(settings, 4)


def test_settings_build_what_they_say():
    masks = build_detector(RcnnSettings(backbone="botnet_tiny", **SMALL, **MASKS), 4)
    boxes = build_detector(RcnnSettings(detector="faster_rcnn", backbone="botnet_tiny", **SMALL), 4)
    assert masks.roi_heads.has_mask()
    assert not boxes.roi_heads.has_mask()
    assert masks.roi_heads.detections_per_img == 10


def body(detector):
    return detector.get_submodule("backbone.body").state_dict()


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_backbone(kind, tmp_path):
    detector = faster_rcnn("botnet_tiny", 4, **SMALL)
    if kind == "detector":
        source = mask_rcnn("botnet_tiny", 9, **{**SMALL, "fpn_channels": 8})
        expected = body(source)
    else:
        source = botvision.create_model("botnet_tiny", num_classes=7, img_size=64)
        expected = {k: v for k, v in source.state_dict().items() if not k.startswith("fc.")}
    save_weights(tmp_path / "backbone.safetensors", source)
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    load_backbone_weights(detector, tmp_path / "backbone.safetensors")
    after = detector.state_dict()
    assert body(detector).keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in body(detector).items())
    others = [key for key in before if not key.startswith("backbone.body.")]
    assert others
    assert all(torch.equal(after[key], before[key]) for key in others)


def test_backbone_of_another_image_size_has_its_tables_resized(tmp_path):
    source = botvision.create_model("botnet_tiny", img_size=128)
    save_weights(tmp_path / "backbone.safetensors", source)
    detector = faster_rcnn("botnet_tiny", 4, **SMALL)
    load_backbone_weights(detector, tmp_path / "backbone.safetensors")
    names = [key for key in body(detector) if key.endswith("qkv.weight")]
    assert names
    assert all(torch.equal(body(detector)[key], source.state_dict()[key]) for key in names)


@pytest.mark.parametrize("other", ["resnet18", "resnet26", "botnet50"])
def test_backbone_of_another_network(other, tmp_path):
    save_weights(tmp_path / "backbone.safetensors", botvision.create_model(other))
    detector = faster_rcnn("botnet_tiny", 4, **SMALL)
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    with pytest.raises(BotvisionError, match=r"backbone\.safetensors: weights of another model"):
        load_backbone_weights(detector, tmp_path / "backbone.safetensors")
    after = detector.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("build", [mask_rcnn, faster_rcnn])
def test_coordinates_and_scores_are_float32_under_autocast(build):
    # bfloat16 has 8 bits: steps of half a pixel from 64 on, of four from 512 on.
    detector = build("botnet_tiny", 4, **{**SMALL, "image_size": 192}).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (output,) = detector([torch.rand(3, 192, 192)])
    assert {output[name].dtype for name in output if name != "labels"} == {torch.float32}
    inside = output["boxes"][(output["boxes"] > 64) & (output["boxes"] < 192)]
    assert len(inside) > 0
    assert not torch.equal(inside, inside.bfloat16().float())


@pytest.mark.parametrize("build", [mask_rcnn, faster_rcnn])
def test_double_precision_stays_double(build):
    detector = build("botnet_tiny", 4, **SMALL).double().eval()
    image = torch.rand(3, 64, 80, dtype=torch.float64)
    with torch.no_grad():
        (output,) = detector([image])
        (single,) = detector.float()([image.float()])
    assert {output[name].dtype for name in output if name != "labels"} == {torch.float64}
    assert len(output["boxes"]) > 0
    best, other = output["scores"].max(), single["scores"].max()
    torch.testing.assert_close(best.float(), other, atol=1e-4, rtol=0)


def test_losses_are_float32_under_autocast():
    detector = mask_rcnn("botnet_tiny", 4, **SMALL).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector([torch.rand(3, 64, 64)], [targets(True, 2)])
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_autocast_still_reaches_the_network_and_the_heads():
    # What is costly runs in bfloat16; what it gives is then widened.
    detector = mask_rcnn("botnet_tiny", 4, **SMALL).eval()
    seen = {}
    for name, module in detector.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.dtype}))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        detector([torch.rand(3, 64, 64)])
    assert {name: dtype for name, dtype in seen.items() if dtype != torch.bfloat16} == {}
