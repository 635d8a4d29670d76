"""A detector as a function of images: images in, supervision's detections out."""

import numpy as np
import pytest
import torch

import botvision
from botvision.detection import detr, mask_rcnn
from botvision.errors import BotvisionError
from botvision.supervision_import import import_supervision
from botvision.tasks.detection.build import build_detector
from botvision.tasks.detection.predictor import DetectionPredictor, _resize_to
from botvision.weights.file import read_description, read_tensors, save_weights

IDS = {10 * digit + 3: str(digit - 1) for digit in range(1, 11)}
TINY = {"num_classes": 3, "image_size": 64}


def test_fields(predictor, val_image):
    assert isinstance(predictor, DetectionPredictor)
    assert predictor.task == "instance_segmentation"
    assert predictor.classes == tuple(IDS.values())
    assert predictor.input_size == 64
    found = predictor(val_image, threshold=0.0)
    assert isinstance(found, import_supervision().Detections)
    count = len(found)
    assert count == 10
    assert found.xyxy.shape == (count, 4)
    assert (found.xyxy[:, 2:] >= found.xyxy[:, :2]).all()
    assert isinstance(found.mask, import_supervision().CompactMask)
    assert found.mask.shape == (count, 64, 64)
    assert np.asarray(found.mask).dtype == bool
    assert found.xyxy.dtype == np.float32
    assert found.class_id.dtype == np.int64
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()
    assert (np.diff(found.confidence) <= 0).all()
    assert set(found.class_id.tolist()) <= set(IDS)
    assert [IDS[i] for i in found.class_id.tolist()] == found.data["class_name"].tolist()


def test_threshold_is_the_smallest_score_that_is_kept(predictor, val_image):
    every = predictor(val_image, threshold=0.0)
    middle = float(np.sort(every.confidence)[5])
    kept = predictor(val_image, threshold=middle)
    assert len(kept) == 5
    assert kept.confidence.min() == np.float32(middle)
    assert len(predictor(val_image)) == (every.confidence >= 0.5).sum()


def test_nothing_found(predictor, val_image):
    found = predictor(val_image, threshold=1.0)
    assert len(found) == 0
    assert found.mask.shape == (0, 64, 64)
    assert found.class_id.shape == (0,)
    assert found.data["class_name"].shape == (0,)


def test_a_strip_of_which_nothing_is_left_is_a_clear_error(predictor):
    with pytest.raises(BotvisionError, match="7 x 4000"):
        predictor(np.zeros((4000, 7, 3), np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (31, 33), (200, 40), (1, 1), (400, 7)])
def test_any_size(size, predictor):
    height, width = size
    found = predictor(np.full((height, width, 3), 90, np.uint8), threshold=0.0)
    assert found.mask.shape[1:] == size or len(found) == 0
    assert (found.xyxy >= 0).all()
    assert (found.xyxy <= [width, height, width, height]).all()


def test_images_of_other_sizes_change_nothing(predictor):
    rng = np.random.default_rng(0)
    sizes = [(64, 48), (32, 64), (64, 64), (20, 64)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    for image, found in zip(images, predictor(images, threshold=0.0), strict=True):
        alone = predictor(image, threshold=0.0)
        assert np.array_equal(found.xyxy, alone.xyxy)
        assert np.array_equal(found.confidence, alone.confidence)
        assert np.array_equal(np.asarray(found.mask), np.asarray(alone.mask))


def test_no_flips(predictor, val_image):
    with pytest.raises(BotvisionError, match="tta: expected a classifier, got a detector"):
        predictor(val_image, tta=True)


def test_faster_rcnn_has_no_masks(make_recipe, describe_detector, tmp_path, val_image):
    recipe = make_recipe("model.detector=faster_rcnn")
    model = build_detector(recipe.model, 2)
    save_weights(tmp_path / "w.safetensors", model, describe_detector(recipe))
    predictor = botvision.load(tmp_path / "w.safetensors")
    assert predictor.task == "detection"
    found = predictor(val_image, threshold=0.0)
    assert found.mask is None
    assert set(found.class_id.tolist()) == {7}


def test_loading_asks_for_no_pretrained_weights(trained_run, tmp_path, monkeypatch):
    # They are in the file; to fetch others first would need the network.
    import botvision.tasks.detection.detectors.backbone as backbone

    description = read_description(trained_run.last)
    model = {**description.model, "backbone_arguments": {"pretrained": True}}
    path = tmp_path / "w.safetensors"
    asked = []
    create = backbone.create_model

    def creating(name, **options):
        asked.append(options.pop("pretrained", False))
        return create(name, **options)

    monkeypatch.setattr(backbone, "create_model", creating)
    changed = description.model_copy(update={"model": model})
    save_weights(path, botvision.load(trained_run.last).model, changed)
    botvision.load(path)
    assert asked == [False, False]


def test_the_file_says_all_that_is_needed(trained_run):
    description = read_description(trained_run.best)
    assert description.task == "detection"
    assert description.model["backbone"] == "botnet_tiny"
    assert [each.id for each in description.classes] == sorted(IDS)
    assert description.recipe["training"]["epochs"] == 2
    assert description.metrics["box_ap_per_class"].keys() == set(IDS.values())
    assert description.made_by["step"] > 0
    tensors = read_tensors(trained_run.best)
    model = botvision.load(trained_run.best).model
    assert not model.training
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())


def test_mean_and_std_of_the_file_are_used(trained_run, val_image, tmp_path):
    description = read_description(trained_run.best)
    given = description.input.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)})
    model = botvision.load(trained_run.best).model
    path = tmp_path / "w.safetensors"
    save_weights(path, model, description.model_copy(update={"input": given}))
    transform = botvision.load(path).model.transform
    assert transform.image_mean == [0.1, 0.2, 0.3]
    assert transform.image_std == [0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("make", "padded"),
    [
        # The feature pyramid wants multiples of 32; DETR the whole square.
        (lambda: mask_rcnn("botnet_tiny", fpn_channels=8, **TINY), (96, 64)),
        (lambda: detr("botnet_tiny", hidden_dim=16, num_heads=2, **TINY), (96, 96)),
    ],
    ids=["mask_rcnn", "detr"],
)
def test_images_are_fitted_into_the_square_asked_for(make, padded):
    detector = make().eval()
    _resize_to(96, detector.transform)
    images, _ = detector.transform([torch.rand(3, 60, 40)])
    assert images.image_sizes == [(96, 64)]
    assert images.tensors.shape[-2:] == padded
    with torch.no_grad():
        (found,) = detector([torch.rand(3, 60, 40)])
    assert found["boxes"].shape[1] == 4


def test_another_image_size(trained_run, val_image):
    predictor = botvision.load(trained_run.best, image_size=96)
    assert predictor.input_size == predictor.description.input.size == 96
    assert predictor.model.transform.max_size == 96
    assert predictor(val_image, threshold=0.0).mask.shape[1:] == (64, 64)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"detector": "yolo"}, "expected the weights of a detector.*yolo"),
        ({"fpn_channels": "wide"}, "expected the weights of a detector.*fpn_channels"),
        ({"backbone": "botnt50"}, "botnt50.*botnet50"),
        ({"fpn_channels": 32}, "weights of another model"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(changes, expected, trained_run, tmp_path):
    description = read_description(trained_run.best)
    changed = description.model_copy(update={"model": {**description.model, **changes}})
    path = tmp_path / "w.safetensors"
    save_weights(path, botvision.load(trained_run.best).model, changed)
    with pytest.raises(BotvisionError, match=expected) as raised:
        botvision.load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_unknown_settings_are_ignored(trained_run, val_image, predictor, tmp_path):
    description = read_description(trained_run.best)
    changed = description.model_copy(update={"model": {**description.model, "gating": True}})
    path = tmp_path / "w.safetensors"
    save_weights(path, predictor.model, changed)
    found = botvision.load(path)(val_image, threshold=0.0)
    assert np.array_equal(found.xyxy, predictor(val_image, threshold=0.0).xyxy)
