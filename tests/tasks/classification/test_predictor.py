"""A classifier as a function of images: images in, supervision's classifications out."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

import botvision
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.supervision_import import import_supervision
from botvision.tasks.classification.predictor import ClassificationPredictor
from botvision.weights.file import read_description, read_tensors, write_tensors


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
def test_the_part_that_is_looked_at(size, side, share, describe):
    width, height = size
    # Colors say where a pixel was: red its column, green its row, in 0..1.
    across = np.broadcast_to(np.arange(width) / width, (height, width))
    down = np.broadcast_to(np.arange(height)[:, None] / height, (height, width))
    pixels = np.stack([across, down, down], axis=2)
    image = Image.fromarray((255 * pixels).astype(np.uint8))
    channels = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    given = {"size": side, "crop": share, **channels}
    description = describe(input={**describe().input.model_dump(), **given})
    predictor = ClassificationPredictor(nn.Identity(), description)
    seen = predictor.transform(image)
    left, top, right, bottom = predictor.covered_box(image)
    step = (right - left) / side
    found = np.array([seen[0, 0, 0], seen[1, 0, 0], seen[0, 0, -1], seen[1, -1, 0]])
    expected = np.array([left, top, right - step, bottom - step])
    assert np.allclose(found * [width, height, width, height], expected, atol=step + 2)


def test_an_image_in_every_form(predictor, files):
    assert isinstance(predictor, ClassificationPredictor)
    image = read_image(files[3])
    expected = by_hand(predictor, image)
    for form in (files[3], str(files[3]), image, np.asarray(image)):
        found = predictor(form)
        assert isinstance(found, import_supervision().Classifications)
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


def test_a_threshold(predictor, files):
    every = predictor(files[0])
    kept = predictor(files[0], threshold=float(every.confidence[2]))
    assert kept.class_id.tolist() == every.class_id[:3].tolist()
    assert len(predictor(files[0], threshold=1.0)) == 0


def test_flips_in_a_call(predictor, files):
    image = read_image(files[1])
    expected = predictor.probabilities([image], tta=True)[0].numpy()
    found = predictor(image, tta=True)
    assert np.allclose(found.confidence, expected[found.class_id])


def test_another_image_size(classifier_run, files):
    predictor = botvision.load(classifier_run.best, image_size=48)
    assert predictor.input_size == predictor.description.input.size == 48
    tables = {
        name: tuple(tensor.shape)
        for name, tensor in predictor.model.state_dict().items()
        if ".position." in name
    }
    # c5's first block attends to a quarter of the side.
    assert tables
    assert {length for length, _ in tables.values()} <= {2 * 12 - 1, 2 * 6 - 1}
    assert predictor.transform(Image.new("RGB", (90, 60))).shape == (3, 48, 48)
    assert float(predictor(files[0]).confidence.sum()) == pytest.approx(1, abs=1e-3)


def change(classifier_run, tmp_path, **changes):
    """A copy of the weights with another description."""
    description = read_description(classifier_run.best).model_copy(update=changes)
    path = tmp_path / "a.safetensors"
    write_tensors(path, read_tensors(classifier_run.best), description)
    return path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"classifier": None}, "expected the weights of a classifier.*classifier"),
        ({"stem": "deep"}, "expected the weights of a classifier.*stem"),
        ({"classifier": "botnet5"}, "'botnet5' is unknown.*did you mean"),
        ({"classifier": "resnet26"}, "weights of another model"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(changes, expected, classifier_run, tmp_path):
    model = {**read_description(classifier_run.best).model, **changes}
    path = change(classifier_run, tmp_path, model=model)
    with pytest.raises(BotvisionError, match=expected) as raised:
        botvision.load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_unknown_settings_are_ignored(classifier_run, predictor, files, tmp_path):
    model = {**read_description(classifier_run.best).model, "gating": True}
    loaded = botvision.load(change(classifier_run, tmp_path, model=model))
    assert torch.equal(loaded.probabilities(files), predictor.probabilities(files))


def test_weights_of_another_number_of_classes(classifier_run, tmp_path):
    classes = read_description(classifier_run.best).classes[:6]
    with pytest.raises(BotvisionError, match=r"a\.safetensors: weights of another model.*fc"):
        botvision.load(change(classifier_run, tmp_path, classes=classes))


def test_the_filter_of_the_file_is_used(classifier_run, predictor, files, tmp_path):
    given = read_description(classifier_run.best).input
    changed = given.model_copy(update={"interpolation": "nearest"})
    loaded = botvision.load(change(classifier_run, tmp_path, input=changed))
    image = read_image(files[0])
    assert not torch.equal(loaded.transform(image), predictor.transform(image))


def test_loading_asks_for_no_pretrained_weights(classifier_run, tmp_path, monkeypatch):
    from botvision.tasks.classification import build

    asked = []
    create = build.create_model

    def creating(name, **options):
        asked.append(options.get("pretrained", False))
        return create(name, **options)

    model = read_description(classifier_run.best).model
    arguments = {**model["classifier_arguments"], "pretrained": True}
    changed = {**model, "classifier_arguments": arguments}
    path = change(classifier_run, tmp_path, model=changed)
    monkeypatch.setattr(build, "create_model", creating)
    botvision.load(path)
    assert asked == [False]
