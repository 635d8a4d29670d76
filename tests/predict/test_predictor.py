"""A ready predictor: images in, supervision's detections out."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import botvision
from botvision.datasets.coco.file import read_annotations
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.predict.evaluation import evaluate_weights
from botvision.tasks.detection.metrics import CocoMetrics
from botvision.weights.file import read_description, read_tensors, save_weights

IDS = {10 * digit + 3: str(digit - 1) for digit in range(1, 11)}


@pytest.mark.parametrize("kind", ["text", "path", "image", "array", "copy", "reversed"])
def test_every_kind_of_image(kind, predictor, val_image):
    image = read_image(val_image)
    array = np.asarray(image)  # read only, as Pillow gives it
    photo = {
        "text": str(val_image),
        "path": val_image,
        "image": image,
        "array": array,
        "copy": array.copy(),
        "reversed": np.ascontiguousarray(array[..., ::-1])[..., ::-1],  # as from OpenCV
    }[kind]
    found = predictor(photo, score=0.0)
    expected = predictor(val_image, score=0.0)
    assert (type(found).__module__.split(".")[0], type(found).__name__) == (
        *("supervision", "Detections"),
    )
    assert np.array_equal(found.xyxy, expected.xyxy)
    assert np.array_equal(found.mask, expected.mask)


def test_fields(predictor, val_image):
    found = predictor(val_image, score=0.0)
    count = len(found)
    assert count == 10
    assert found.xyxy.shape == (count, 4)
    assert (found.xyxy[:, 2:] >= found.xyxy[:, :2]).all()
    assert found.mask.shape == (count, 64, 64)
    assert found.mask.dtype == bool
    assert found.xyxy.dtype == np.float32
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()
    assert set(found.class_id.tolist()) <= set(IDS)
    assert [IDS[i] for i in found.class_id.tolist()] == found.data["class_name"].tolist()


def test_score_is_the_smallest_that_is_kept(predictor, val_image):
    every = predictor(val_image, score=0.0)
    middle = float(np.sort(every.confidence)[5])
    kept = predictor(val_image, score=middle)
    assert len(kept) == 5
    assert kept.confidence.min() == np.float32(middle)


def test_nothing_found(predictor, val_image):
    found = predictor(val_image, score=1.0)
    assert len(found) == 0
    assert found.mask.shape == (0, 64, 64)
    assert found.class_id.shape == (0,)


def test_a_strip_of_which_nothing_is_left_is_a_clear_error(predictor):
    with pytest.raises(BotvisionError, match="7 x 4000"):
        predictor(np.zeros((4000, 7, 3), np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (31, 33), (200, 40), (1, 1), (400, 7)])
def test_any_size(size, predictor):
    height, width = size
    found = predictor(np.full((height, width, 3), 90, np.uint8), score=0.0)
    assert found.mask.shape[1:] == size or len(found) == 0
    assert (found.xyxy >= 0).all()
    assert (found.xyxy <= [width, height, width, height]).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_any_mode(mode, predictor, val_image):
    predictor(read_image(val_image).convert(mode))


@pytest.mark.parametrize(
    "array",
    [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3))],
    ids=["gray", "four channels", "float"],
)
def test_array_that_is_no_image(array, predictor):
    with pytest.raises(ValueError, match=r"image: expected RGB uint8 \[H, W, 3\], got "):
        predictor(array)


def test_faster_rcnn_has_no_masks(make_recipe, tmp_path, val_image):
    from botvision.tasks.detection.build import build_detector

    recipe = make_recipe("model.detector=faster_rcnn")
    description = {
        "model": recipe.model.model_dump(mode="json", exclude={"backbone_weights"}),
        "categories": [{"id": 7, "name": "thing"}],
        "recipe": recipe.model_dump(mode="json"),
    }
    save_weights(tmp_path / "w.safetensors", build_detector(recipe.model, 2), description)
    found = botvision.load(tmp_path / "w.safetensors")(val_image, score=0.0)
    assert found.mask is None
    assert set(found.class_id.tolist()) == {7}


def test_loading_asks_for_no_pretrained_weights(trained_run, tmp_path, monkeypatch):
    # They are in the file; to fetch others first would need the network.
    import botvision.tasks.detection.detectors.backbone as backbone

    description = read_description(trained_run.last)
    description["model"]["backbone_arguments"] = {"pretrained": True}
    path = tmp_path / "w.safetensors"
    asked = []
    create = backbone.create_model

    def creating(name, **options):
        asked.append(options.pop("pretrained", False))
        return create(name, **options)

    monkeypatch.setattr(backbone, "create_model", creating)
    save_weights(path, botvision.load(trained_run.last).model, description)
    botvision.load(path)
    assert asked == [False, False]


def test_the_file_says_all_that_is_needed(trained_run):
    description = read_description(trained_run.best)
    assert description["model"]["backbone"] == "botnet_tiny"
    assert [c["id"] for c in description["categories"]] == sorted(IDS)
    assert description["recipe"]["training"]["epochs"] == 2
    assert description["metrics"]["box_ap_per_class"].keys() == set(IDS.values())
    tensors = read_tensors(trained_run.best)
    model = botvision.load(trained_run.best).model
    assert not model.training
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())


def quiet(done, total):
    assert 0 < done <= total == 6


def test_val_gives_what_the_run_reported(trained_run):
    for weights in (trained_run.best, trained_run.last):
        assert (
            evaluate_weights(weights, None, progress=quiet)
            == (read_description(weights)["metrics"])
        )


@pytest.fixture
def found_again(trained_run, handwriting, tmp_path):
    """The data with some of the run's own detections as truth, so that its AP is no zero."""
    import shutil

    folder = tmp_path / "data"
    shutil.copytree(handwriting, folder)
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    results = json.loads((trained_run.path / "predictions.json").read_text())
    content["annotations"] = [
        {**result, "id": number, "iscrowd": 0, "area": result["bbox"][2] * result["bbox"][3]}
        for number, result in enumerate(results[::3], start=1)
        if min(result["bbox"][2:]) > 1
    ]
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_val_finds_what_the_run_found(batch_size, trained_run, found_again):
    truth = read_annotations(found_again / "annotations" / "instances_val.json")
    expected = CocoMetrics(truth, masks=True)
    expected.process(json.loads((trained_run.path / "predictions.json").read_text()))
    figures = expected.evaluate()
    assert figures["box_ap"] > 0.2
    got = evaluate_weights(trained_run.last, found_again, batch_size=batch_size, progress=quiet)
    assert got["box_ap"] == pytest.approx(figures["box_ap"], abs=1e-3)
    assert got["mask_ap"] == pytest.approx(figures["mask_ap"], abs=1e-3)
    if batch_size == 2:  # that of the run
        assert got == figures


def test_images_are_upright(predictor, val_image, tmp_path):
    image = read_image(val_image)
    exif = Image.Exif()
    exif[0x0112] = 3
    image.rotate(180).save(tmp_path / "turned.png", exif=exif)
    found = predictor(tmp_path / "turned.png", score=0.0)
    assert np.array_equal(found.xyxy, predictor(image, score=0.0).xyxy)
