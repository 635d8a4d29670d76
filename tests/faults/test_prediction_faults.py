"""What happens to people who predict: their files, earlier output, odd images, batches."""

import json
import shlex
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from botvision.datasets import loading
from botvision.datasets.folders.splits import read_split
from botvision.errors import BotvisionError
from botvision.images import stream
from botvision.images.decode import read_image
from botvision.images.find import find_images
from botvision.predict.evaluation import evaluate
from botvision.predict.files import predict_files
from botvision.tasks import predictor as predictors
from botvision.tasks.detection import evaluation
from botvision.tasks.detection.build import build_detector
from botvision.tasks.detection.evaluation import detect


@pytest.fixture
def photos(handwriting, tmp_path):
    """A folder of three photographs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        shutil.copy(handwriting / "images" / f"val_{number:06d}.jpg", folder)
    return folder


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_predicting_again_finds_the_same_images(kind, photos, trained_run, classifier_run, cli):
    run = trained_run if kind == "detector" else classifier_run
    for output in ("run1", "run1", "run2"):
        status, text, error = cli(
            *("predict", photos, "--weights", run.best, "--output", photos / output)
        )
        assert (status, error) == (0, "")
        content = json.loads((photos / output / "predictions.json").read_text())
        assert len(content["images"]) == 3
    assert "files of earlier predictions" in text


@pytest.mark.parametrize("name", ["predictions.json", "val_000000_jpg.jpg"])
def test_a_file_of_the_user_is_not_replaced(name, photos, predictor, tmp_path, tree):
    output = tmp_path / "results"
    output.mkdir()
    (output / name).write_text('{"images": []}')
    before = tree(output)
    with pytest.raises(BotvisionError, match=f"{name} is there and is not of an earlier"):
        predict_files(predictor, find_images(photos).paths, output)
    assert tree(output) == before


def test_output_that_was_interrupted_moved_or_linked_is_no_input(photos, predictor, tmp_path):
    predict_files(predictor, find_images(photos).paths, tmp_path / "out")
    (tmp_path / "out" / "predictions.json").unlink()
    shutil.copytree(tmp_path / "out", photos / "copied")
    (photos / "linked.jpg").symlink_to(tmp_path / "out" / "val_000000_jpg.jpg")
    found = find_images(photos)
    assert len(found.paths) == 3
    assert found.left_out == {"files of earlier predictions": 6}
    with pytest.raises(BotvisionError, match="left out: 5 files of earlier predictions"):
        find_images(tmp_path / "out")
    # The interrupted work is done again.
    content = predict_files(predictor, found.paths, tmp_path / "out").content()
    assert len(content["images"]) == 3


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_output_of_an_earlier_version_is_no_input(kind, photos):
    """It bears no marks."""
    output = photos / "predictions"
    (output / "sub").mkdir(parents=True)
    names = ["a.jpg", "sub/b.PNG", "sub/b.png"]
    drawn = ["a_jpg.png", "sub/b_png.png", "sub/b_png_2.png"]
    images = [{"file_name": name, "id": number} for number, name in enumerate(names)]
    content = {"images": images, "categories": [], "annotations": [], "skipped": []}
    if kind == "classifier":
        drawn = ["predictions.jpg"]
        content = {"classes": [], "images": images, "skipped": []}
    (output / "predictions.json").write_text(json.dumps(content))
    for name in (*drawn, "mine.png", "sub/mine.png"):
        Image.new("RGB", (9, 9)).save(output / name)
    found = find_images(photos)
    assert [path.name for path in found.paths[:2]] == ["mine.png", "mine.png"]
    assert len(found.paths) == 5
    assert found.left_out == {"files of earlier predictions": len(drawn) + 1}


def test_images_beside_an_output_are_input(photos, predictor, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 64)).save(other)
    predict_files(predictor, [other], photos)
    assert len(find_images(tmp_path).paths) == 4
    assert len(find_images(photos).paths) == 3


@pytest.mark.parametrize("how", ["replaced", "linked"])
def test_a_file_of_the_user_among_the_output_is_not_replaced(how, photos, predictor, tmp_path):
    output = tmp_path / "out"
    predict_files(predictor, find_images(photos).paths, output)
    mine = output / "val_000001_jpg.jpg"
    if how == "linked":
        moved = mine.rename(tmp_path / "mine.png")
        mine.symlink_to(moved)
    else:
        shutil.copy(photos / "val_000000.jpg", mine)
    before = mine.read_bytes()
    with pytest.raises(BotvisionError, match=r"val_000001_jpg\.jpg is there and is not of an ear"):
        predict_files(predictor, find_images(photos).paths, output)
    assert mine.read_bytes() == before
    assert mine.is_symlink() == (how == "linked")


@pytest.mark.parametrize("size", [(400, 2), (2, 400)])
def test_strips(size, photos, predictor, tmp_path):
    Image.new("RGB", size, "gray").save(photos / "val_000001b.png")
    paths = find_images(photos).paths
    with pytest.raises(
        BotvisionError, match=r"val_000001b\.png: .*a longer side of at most"
    ) as raised:
        predict_files(predictor, paths, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
    content = predict_files(predictor, paths, tmp_path / "out", skip_bad=True).content()
    assert len(content["images"]) == 3
    assert [each["file_name"] for each in content["skipped"]] == ["val_000001b.png"]


def test_detections_do_not_depend_on_neighbors(predictor):
    generator = np.random.default_rng(0)
    images = [
        torch.from_numpy(generator.random((3, *size), np.float32))
        for size in [(64, 64), (32, 64), (64, 32), (32, 64), (48, 64)]
    ]
    alone = [detect(predictor.model, [image], "float32")[0] for image in images]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        together = detect(predictor.model, [images[index] for index in order], "float32")
        for index, found in zip(order, together, strict=True):
            assert np.allclose(found.xyxy, alone[index].xyxy, atol=1e-4)
            assert np.allclose(found.confidence, alone[index].confidence, atol=1e-5)
            assert (found.class_id == alone[index].class_id).all()


def test_nested_class_folders_are_those_of_torchvision(tmp_path):
    for name in ("cat/big/0.jpg", "cat/small/0.jpg", "cat/1.jpg", "dog/a/b/0.jpg", "dog/a/1.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "cat" / "@eaDir").mkdir()
    (tmp_path / "cat" / "@eaDir" / "0.jpg").touch()
    (tmp_path / "cat" / "._1.jpg").touch()
    found = read_split(tmp_path)
    shutil.rmtree(tmp_path / "cat" / "@eaDir")
    (tmp_path / "cat" / "._1.jpg").unlink()
    theirs = torchvision.datasets.ImageFolder(str(tmp_path))
    assert list(found.classes) == theirs.classes
    expected = {
        str(tmp_path / name): label for name, label in zip(found.names, found.labels, strict=True)
    }
    assert {path: int(label) for path, label in expected.items()} == dict(theirs.samples)


def test_detections_cut_at_the_limit_are_said(photos, trained_run, classifier_run, cli):
    import botvision

    predictor = botvision.load(trained_run.best)
    assert predictor.max_detections == 10
    paths = find_images(photos).paths
    report = predict_files(predictor, paths, photos.parent / "few", threshold=0.0)
    content = report.content()
    assert [image["max_detections"] for image in content["images"]] == [10] * 3
    assert "3 of the images have 10 instances, the most that this model gives" in str(report.lines)
    predictor.limit_detections(40)
    report = predict_files(predictor, paths, photos.parent / "many", threshold=0.0)
    content = report.content()
    assert len(content["annotations"]) == 3 * 40
    assert [image["max_detections"] for image in content["images"]] == [40] * 3
    report = predict_files(predictor, paths, photos.parent / "sure", threshold=0.9)
    content = report.content()
    assert not any("max_detections" in image for image in content["images"])
    assert "most that this model gives" not in str(report.lines)
    with pytest.raises(BotvisionError, match="max_detections: expected 1 or more, got 0"):
        predictor.limit_detections(0)
    for weights, expected in ((trained_run.best, 0), (classifier_run.best, 2)):
        status, _, error = cli(
            *("predict", photos, "--weights", weights, "--output", photos.parent / str(expected)),
            *("--max-detections", 500),
        )
        assert status == expected, error
    assert "max_detections: expected a detector" in error


def test_few_large_images_are_in_memory(photos, predictor, tmp_path, monkeypatch):
    """Here an image of 64 x 64 pixels is large; the results are those of a batch of all."""
    paths = find_images(photos).paths
    expected = predictor(paths, threshold=0.0)
    images = [pil_to_tensor(read_image(path)) for path in paths]
    at_once, decoded = [], []
    handle = predictor.model.register_forward_pre_hook(
        lambda _, inputs: at_once.append(len(inputs[0]))
    )
    predict = type(predictor).predict

    def watched(self, batch, **options):
        decoded.append(len(batch))
        return predict(self, batch, **options)

    monkeypatch.setattr(type(predictor), "predict", watched)
    monkeypatch.setattr(evaluation, "FORWARD_PIXELS", 2 * 64 * 64)
    precision = predictor.description.input.precision
    assert_alike(detect(predictor.model, images, precision), expected)
    assert at_once == [2, 1]
    monkeypatch.setattr(evaluation, "FORWARD_PIXELS", 64 * 64)
    for module in (predictors, stream):
        monkeypatch.setattr(module, "DECODED_PIXELS", 2 * 64 * 64)
    assert_alike(predictor(paths, threshold=0.0), expected)
    found = [result for _, result in predictor.stream(paths, threshold=0.0)]
    assert_alike(found, expected)
    content = predict_files(predictor, paths, tmp_path / "out", threshold=0.0).content()
    predictor([np.zeros((8, 8), np.uint8)] * 5)  # enlarged for the network
    handle.remove()
    assert decoded == [2, 1] * 3 + [2, 2, 1]
    assert at_once == [2, 1] + [1, 1, 1] * 3 + [2, 2, 1]
    assert len(content["annotations"]) == sum(map(len, expected))


def assert_alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        # Sums over another number of images differ in their last bits, here those of bfloat16.
        assert np.allclose(np.sort(one.confidence), np.sort(other.confidence), atol=0.02)


def test_an_evaluation_reads_few_large_images_at_a_time(trained_run, monkeypatch):
    import botvision

    predictor = botvision.load(trained_run.best)
    expected = evaluate(predictor, batch_size=8)
    at_once = []
    read = evaluation.detect

    def watched(model, images, *rest):
        at_once.append(len(images))
        return read(model, images, *rest)

    monkeypatch.setattr(evaluation, "detect", watched)
    monkeypatch.setattr(loading, "FORWARD_PIXELS", 4 * 64 * 64)
    found = evaluate(predictor, batch_size=8)
    assert at_once == [4, 2]
    assert found["box_ap"] == pytest.approx(expected["box_ap"], abs=1e-3)


@pytest.mark.parametrize("detector", ["mask_rcnn", "faster_rcnn"])
def test_a_threshold_below_the_models_own(detector, make_recipe):
    torch.manual_seed(0)
    settings = make_recipe(f"model.detector={detector}", "model.box_score_thresh=0.0").model
    model = build_detector(settings, 11).eval()
    image = torch.rand(3, 64, 64)
    (every,) = detect(model, [image], "float32", threshold=0.0)
    middle = float(every.confidence[4])
    model.roi_heads.score_thresh = float(every.confidence[2])
    assert len(detect(model, [image], "float32")[0]) == 2
    assert len(detect(model, [image], "float32", threshold=0.0)[0]) == len(every) > 5
    assert len(detect(model, [image], "float32", threshold=middle)[0]) == 5
    assert model.roi_heads.score_thresh == float(every.confidence[2])
    with pytest.raises(RuntimeError):
        detect(model, [torch.rand(4, 64, 64)], "float32", threshold=0.0)
    assert model.roi_heads.score_thresh == float(every.confidence[2])


def test_a_limit_for_one_call(photos, trained_run, classifier_run, cli):
    import botvision

    predictor = botvision.load(trained_run.best)
    proposals = dict(predictor.model.rpn._post_nms_top_n)
    paths, output = find_images(photos).paths, photos.parent / "many"
    report = predict_files(predictor, paths, output, threshold=0.0, max_detections=40)
    content = report.content()
    assert len(content["annotations"]) == 3 * 40
    assert "3 of the images have 40 instances" in str(report.lines)
    for limit, expected in ((None, 10), (20, 20)):
        notes = []
        evaluate(predictor, max_detections=limit, note=notes.append)
        (note,) = notes
        assert note.startswith(f"6 of the images have {expected} detections, the most that this")
    predictor.model.roi_heads.score_thresh = 0.9
    evaluate(predictor, note=notes.append)
    assert notes == [note]
    assert predictor.max_detections == 10
    assert predictor.model.rpn._post_nms_top_n == proposals
    with pytest.raises(BotvisionError, match="max_detections: expected 1 or more, got 0"):
        evaluate(predictor, max_detections=0)
    with pytest.raises(BotvisionError, match="max_detections: expected a detector"):
        evaluate(classifier_run.best, max_detections=5)
    status, text, _ = cli("val", trained_run.best, "--max-detections", 7)
    assert status == 0
    assert "6 of the images have 7 detections, the most" in text
    status, text, error = cli("val", trained_run.best, "--json")
    assert "6 of the images have 10 detections, the most" in error
    assert json.loads(text)


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_paths_that_are_printed_can_be_pasted(kind, photos, trained_run, classifier_run, cli):
    run = trained_run if kind == "detector" else classifier_run
    output = photos.parent / "my results [1]" / ("and a long name " * 6)
    status, text, _ = cli("predict", photos, "--weights", run.best, "--output", output)
    assert status == 0
    assert shlex.split(text.strip().splitlines()[-1])[-1] == str(output)
    commands = {
        "val": ("val", run.best, "--output", output),
        "attention-map": (
            *("attention-map", photos / "val_000000.jpg", "--at", "9,9", "--weights", run.best),
            *("--output", output / "a.png"),
        ),
    }
    for name, arguments in commands.items():
        if (kind, name) == ("detector", "val"):
            continue
        status, text, error = cli(*arguments)
        assert (status, error) == (0, "")
        assert str(output) in shlex.split(text.splitlines()[-1])[-1]
