"""A trained classifier as a function of images, from each form that its weights come in."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

import botvision
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.predict import ClassPredictor
from botvision.predict.class_predictor import Preparation
from botvision.predict.loading import load_detector
from botvision.tasks.classification.transforms import evaluation_transform
from botvision.weights.file import read_description, read_tensors, write_tensors
from botvision.weights.hub import from_pretrained, save_pretrained


@pytest.fixture(scope="module")
def predictor(classifier_run):
    return botvision.load(classifier_run.best)


@pytest.fixture(scope="module")
def files(colors):
    return sorted((colors / "val").rglob("*.png"))[::4]


def by_hand(predictor, image, *, mirrored=False):
    """Probabilities by torchvision's transforms and the model alone."""
    prepare = transforms.Compose(
        [
            transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    seen = prepare(image)[None]
    if mirrored:
        seen = seen.flip(-1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        return F.softmax(predictor.model(seen).float(), dim=1)[0]


@pytest.mark.parametrize("size", [(400, 300), (301, 520)])
@pytest.mark.parametrize(("side", "share"), [(224, 0.875), (100, 1.0), (64, 0.6)])
def test_the_part_that_is_looked_at(size, side, share):
    width, height = size
    # Colors say where a pixel was: red its column, green its row, in 0..1.
    across = np.broadcast_to(np.arange(width) / width, (height, width))
    down = np.broadcast_to(np.arange(height)[:, None] / height, (height, width))
    pixels = np.stack([across, down, down], axis=2)
    image = Image.fromarray((255 * pixels).astype(np.uint8))
    preparation = Preparation(side, share, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    seen = evaluation_transform(side, share, mean=preparation.mean, std=preparation.std)(image)
    left, top, right, bottom = preparation.box(width, height)
    step = (right - left) / side
    found = np.array([seen[0, 0, 0], seen[1, 0, 0], seen[0, 0, -1], seen[1, -1, 0]])
    expected = np.array([left, top, right - step, bottom - step])
    assert np.allclose(found * [width, height, width, height], expected, atol=step + 2)


def test_a_image_in_every_form(predictor, files):
    assert isinstance(predictor, ClassPredictor)
    image = read_image(files[3])
    expected = by_hand(predictor, image)
    for form in (files[3], str(files[3]), image, np.asarray(image)):
        found = predictor(form)
        assert len(found) == 7
        assert (np.diff(found.confidence) <= 0).all()
        assert set(found.class_id.tolist()) == set(range(7))
        torch.testing.assert_close(torch.tensor(found.confidence), expected[found.class_id])
    assert predictor.classes == ("black", "blue", "cyan", "green", "red", "white", "yellow")


def test_the_mean_over_the_mirror_image(predictor, files):
    image = read_image(files[1])
    both = by_hand(predictor, image), by_hand(predictor, image, mirrored=True)
    assert not torch.allclose(*both, atol=1e-4)
    torch.testing.assert_close(
        predictor.probabilities([image], tta=True)[0], (both[0] + both[1]) / 2
    )


def test_many_images_are_as_each_alone(predictor, files):
    together = predictor.probabilities(files, batch_size=4)
    assert together.shape == (len(files), 7)
    for path, row in zip(files, together, strict=True):
        torch.testing.assert_close(row, by_hand(predictor, read_image(path)), atol=0.02, rtol=0)
    assert predictor.probabilities([]).shape == (0, 7)


def test_what_is_no_image(predictor, tmp_path):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(BotvisionError, match=r"a\.png: expected an image"):
        predictor(tmp_path / "a.png")
    with pytest.raises(ValueError, match="expected RGB uint8"):
        predictor(np.zeros((8, 8), np.uint8))


def test_a_published_run_with_our_stem(predictor, classifier_run, files, tmp_path):
    folder = save_pretrained(classifier_run.path, tmp_path / "colors")
    loaded = botvision.load(folder)
    assert loaded.classes == predictor.classes
    assert torch.equal(loaded.probabilities(files), predictor.probabilities(files))
    card = (folder / "README.md").read_text()
    assert "botvision.load(" in card
    assert "7: black, blue" in card
    assert "| top5 |" in card
    assert (folder / "calibration.png").is_file()
    with pytest.raises(BotvisionError, match=r"which botvision\.load reads"):
        from_pretrained(folder)


def test_a_published_run_is_timms(train_classifier, files, tmp_path):
    run = train_classifier("model.stem=imagenet", "model.image_size=64", "training.epochs=1")
    folder = save_pretrained(run.path, tmp_path / "colors")
    loaded = botvision.load(folder)
    assert loaded.preparation == botvision.load(run.best).preparation
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(network)
    assert tuple(config["input_size"]) == (3, 64, 64)
    assert config["crop_pct"] == 1.0
    assert network.pretrained_cfg["label_names"] == list(loaded.classes)
    for name, tensor in read_tensors(run.best).items():
        assert torch.equal(network.state_dict()[name], tensor)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_args"]["img_size"] == 64


def test_a_network_that_was_never_trained_here(files, tmp_path):
    network = botvision.create_model("botnet_tiny", num_classes=2, img_size=64)
    save_pretrained(network, tmp_path, labels=["ant", "bee"])
    predictor = botvision.load(tmp_path)
    assert predictor.classes == ("ant", "bee")
    assert predictor.preparation.image_size == 64
    assert float(predictor(files[0]).confidence.sum()) == pytest.approx(1)


def test_a_classifier_is_no_detector(classifier_run):
    with pytest.raises(BotvisionError, match="expected a detector's weights, got a classifier's"):
        load_detector(classifier_run.best)


@pytest.mark.parametrize("missing", ["classes", "mean", "recipe"])
def test_descriptions_that_do_not_say_enough(classifier_run, tmp_path, missing):
    description = read_description(classifier_run.best)
    del description[missing]
    write_tensors(tmp_path / "a.safetensors", read_tensors(classifier_run.best), description)
    with pytest.raises(
        BotvisionError, match=r"a\.safetensors: expected a classifier's.*"
    ) as caught:
        botvision.load(tmp_path / "a.safetensors")
    assert missing in str(caught.value)


def test_weights_of_another_number_of_classes(classifier_run, tmp_path):
    description = read_description(classifier_run.best)
    description["classes"] = description["classes"][:6]
    write_tensors(tmp_path / "a.safetensors", read_tensors(classifier_run.best), description)
    with pytest.raises(BotvisionError, match=r"a\.safetensors: weights of another model.*fc"):
        botvision.load(tmp_path / "a.safetensors")
