"""What all predictors share: the same result whichever way an image is handed over."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

import botvision
from botvision.errors import BotvisionError
from botvision.images.decode import read_image


@pytest.fixture(params=["detector", "classifier"])
def model(request, predictor):
    if request.param == "detector":
        return predictor
    return botvision.load(request.getfixturevalue("classifier_run").best)


@pytest.fixture
def files(handwriting):
    return sorted((handwriting / "images").glob("val_*.jpg"))


def assert_same(found, expected):
    assert type(found) is type(expected)
    assert len(found) == len(expected) > 0
    assert np.array_equal(found.class_id, expected.class_id)
    assert np.allclose(found.confidence, expected.confidence, atol=1e-6)
    if hasattr(found, "xyxy"):
        assert np.allclose(found.xyxy, expected.xyxy, atol=1e-3)
        assert np.array_equal(found.mask, expected.mask)


FORMS = {
    "text": str,
    "path": lambda path: path,
    "image": read_image,
    "lazy image": Image.open,
    "array": lambda path: np.asarray(read_image(path)),
    "from OpenCV": lambda path: np.asarray(read_image(path))[..., ::-1].copy()[..., ::-1],
    "floats": lambda path: (np.asarray(read_image(path)) / 255).astype(np.float32),
    "tensor": lambda path: torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1),
    "float tensor": lambda path: (
        torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1) / 255
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image(form, model, files):
    given = FORMS[form](files[0])
    expected = model(files[0], threshold=0.0)
    assert_same(model(given, threshold=0.0), expected)
    if form == "lazy image":
        given.close()


def test_a_list_gives_a_list_of_the_same(model, files):
    forms = [form(files[0]) for name, form in FORMS.items() if name != "lazy image"]
    (together,) = [model(forms, threshold=0.0)]
    assert isinstance(together, list)
    for found in together:
        assert_same(found, together[0])
    assert_same(together[0], model(tuple(forms), threshold=0.0)[0])
    assert len(model([files[0]])) == 1
    assert model([]) == []
    assert model(()) == []


def test_a_list_keeps_its_order(model, files):
    together = model(files[:3], threshold=0.0)
    for path, found in zip(files, together, strict=False):
        alone = model(path, threshold=0.0)
        assert np.allclose(np.sort(found.confidence), np.sort(alone.confidence), atol=0.02)


def test_what_is_no_image(model, tmp_path):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(BotvisionError, match=r"a\.png: expected an image"):
        model(tmp_path / "a.png")
    with pytest.raises(BotvisionError, match=r"b\.png: no such image"):
        model(str(tmp_path / "b.png"))
    with pytest.raises(ValueError, match=r"expected an array \[H, W\]"):
        model(np.zeros((64, 64, 4), np.uint8))
    with pytest.raises(TypeError, match="expected a path, a PIL image, an array or a tensor"):
        model(None)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_any_mode(mode, model, files):
    image = read_image(files[0]).convert(mode)
    assert_same(model(image, threshold=0.0), model(image.convert("RGB"), threshold=0.0))


def test_images_are_upright(model, files, tmp_path):
    image = read_image(files[0])
    exif = Image.Exif()
    exif[0x0112] = 3
    image.rotate(180).save(tmp_path / "turned.png", exif=exif)
    assert_same(model(tmp_path / "turned.png", threshold=0.0), model(image, threshold=0.0))


def test_a_threshold_is_the_smallest_score_that_is_kept(model, files):
    every = model(files[0], threshold=0.0)
    middle = float(np.sort(every.confidence)[len(every) // 2])
    kept = model(files[0], threshold=middle)
    assert len(kept) == (every.confidence >= np.float32(middle)).sum()
    assert kept.confidence.min() == np.float32(middle)
    assert len(model(files[0], threshold=1.1)) == 0


def test_attributes(model):
    assert model.classes == model.description.class_names
    assert isinstance(model.classes, tuple)
    assert model.input_size == model.description.input.size
    assert model.device.type == next(model.model.parameters()).device.type
    assert not model.model.training
    assert model.task in ("instance_segmentation", "classification")


# What stream takes.


@pytest.fixture
def folder(files, tmp_path):
    """Images in a folder and in one below it, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    names = ["a.png", "b.png", "c.jpg", "sub/a.png", "sub/d.png"]
    for source, name in zip(itertools.cycle(files), names):
        read_image(source).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def assert_streamed(pairs, paths, model):
    pairs = list(pairs)
    assert [image for image, _ in pairs] == paths
    for path, found in pairs:
        assert_same(found, model(path, threshold=0.0))


ALL = ["a.png", "b.png", "c.jpg", "sub/a.png", "sub/d.png"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (None, ALL),
        ("*.png", ["a.png", "b.png"]),
        ("**/*.png", ["a.png", "b.png", "sub/a.png", "sub/d.png"]),
        ("s*", ["sub/a.png", "sub/d.png"]),
        ("b.png", ["b.png"]),
        ("[ab].png", ["a.png", "b.png"]),
    ],
)
def test_stream_of_a_folder_or_a_pattern(pattern, names, model, folder):
    # In batches of one, as a call, for sums over another number of images differ in last bits.
    source = folder if pattern is None else str(folder / pattern)
    found = model.stream(source, batch_size=1, threshold=0.0)
    assert_streamed(found, [folder / name for name in names], model)


def test_a_folder_whose_name_looks_like_a_pattern(model, folder):
    odd = folder.rename(folder.with_name("photos [2026]"))
    found = model.stream(odd, batch_size=1, threshold=0.0)
    assert_streamed(found, [odd / name for name in ALL], model)
    assert len(list(model.stream(str(odd / "a.png")))) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_stream_of_any_iterable(batch_size, model, files):
    images = [read_image(path) for path in files[:5]]
    pairs = list(model.stream(iter(images), batch_size=batch_size, threshold=0.0))
    assert [image for image, _ in pairs] == images
    for image, found in pairs:
        alone = model(image, threshold=0.0)
        assert np.allclose(np.sort(found.confidence), np.sort(alone.confidence), atol=0.02)
    assert list(model.stream([])) == []
    stacked = np.stack([np.asarray(image) for image in images])
    assert len(list(model.stream(stacked, batch_size=batch_size))) == 5


def test_a_stream_reads_no_more_than_a_batch_ahead(model, files):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield files[number % len(files)]

    stream = model.stream(endless(), batch_size=2)
    assert taken == []
    for number in range(1, 8):
        next(stream)
        assert len(taken) <= number + 1
    stream.close()


def test_a_stream_holds_few_images(model, files, monkeypatch):
    alive = []

    def read():
        import gc
        import weakref

        held = []
        for _ in range(12):
            image = read_image(files[0])
            held.append(weakref.ref(image))
            yield image
            del image
            gc.collect()
            alive.append(sum(each() is not None for each in held))

    for _ in model.stream(read(), batch_size=3):
        pass
    assert max(alive) <= 6


@pytest.mark.parametrize(
    ("source", "expected"),
    [("none", "none: no such file or folder"), ("*.tif", r"\*\.tif: no file matches")],
)
def test_a_source_that_is_missing(source, expected, model, tmp_path):
    with pytest.raises(BotvisionError, match=expected):
        next(model.stream(str(tmp_path / source)))


def test_streams_that_cannot_be(model, files, tmp_path):
    image = read_image(files[0])
    for one in (image, np.asarray(image), torch.zeros(3, 64, 64)):
        with pytest.raises(TypeError, match=r"expected a path or an iterable .*, got one image"):
            next(model.stream(one))
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, got 0"):
        next(model.stream(files, batch_size=0))
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(BotvisionError, match=r"a\.png: expected an image"):
        list(model.stream(tmp_path))
