"""Evaluation: the same metrics however it is split, and no masks kept but as run lengths."""

import gc
import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from botvision.datasets import loading
from botvision.datasets.coco.augmentation import evaluation_transform
from botvision.datasets.coco.dataset import CocoInstances
from botvision.predict.evaluation import evaluate as evaluate_weights
from botvision.recipes.running import train_recipe
from botvision.tasks.detection import evaluation
from botvision.tasks.detection.build import build_detector
from botvision.tasks.detection.evaluation import detect, evaluate_detector
from botvision.training.run_folder import RunFolder
from botvision.weights.file import read_description

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def many_sizes(handwriting, tmp_path_factory):
    """The scenes, every other one narrow: beside a wide one it is padded, beside a narrow not."""
    folder = tmp_path_factory.mktemp("data") / "sizes"
    shutil.copytree(handwriting, folder)
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for number, record in enumerate(content["images"]):
            image = folder / "images" / record["file_name"]
            height, width = 64, (60, 24)[number % 2]
            Image.open(image).resize((width, height)).save(image)
            record.update(height=height, width=width)
        content["annotations"] = [
            {key: value for key, value in each.items() if key != "segmentation"}
            for each in content["annotations"]
        ]
        path.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def detector(make_recipe):
    torch.manual_seed(0)
    return build_detector(make_recipe().model, 11)


def evaluate(detector, folder, num_workers=0):
    data = CocoInstances(folder, "val", transform=evaluation_transform())
    _, metrics = evaluate_detector(
        detector,
        data,
        precision="bfloat16",
        batch_size=2,
        masks=True,
        num_workers=num_workers,
    )
    return metrics.results


def ordered(results):
    assert results
    return sorted(results, key=json.dumps)


def test_workers_change_nothing(detector, many_sizes):
    assert evaluate(detector, many_sizes, num_workers=2) == evaluate(detector, many_sizes)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_processes_change_nothing(number, detector, many_sizes, monkeypatch):
    # To the last bit, as batches of the same images are padded in the same way.
    alone = evaluate(detector, many_sizes)
    shared = []
    for index in range(number):
        place = SimpleNamespace(process_index=index, num_processes=number)
        monkeypatch.setattr(loading, "processes", lambda place=place: place)
        shared += evaluate(detector, many_sizes)
    assert ordered(shared) == ordered(alone)


def test_masks_are_let_go_batch_by_batch(detector, handwriting, monkeypatch):
    held, alive = [], []
    detect = evaluation.detect

    def watched(*arguments):
        gc.collect()
        alive.append(sum(each() is not None for each in held))
        outputs = detect(*arguments)
        held.extend(weakref.ref(output) for output in outputs)
        return outputs

    monkeypatch.setattr(evaluation, "detect", watched)
    results = evaluate(detector, handwriting)
    assert alive[0] == 0
    assert len(alive) == 3
    assert max(alive) <= 2  # the batch before, whose name is still bound
    assert all(isinstance(each["segmentation"]["counts"], str) for each in results)


@pytest.fixture
def images():
    torch.manual_seed(0)
    return [torch.rand(3, 64, 60), torch.rand(3, 50, 91)]


def test_detections_are_the_detectors_own(detector, images):
    with torch.inference_mode():
        outputs = [detector.eval()([image])[0] for image in images]
    found = detect(detector, images, "float32")
    for each, output, image in zip(found, outputs, images, strict=True):
        assert np.array_equal(each.xyxy, output["boxes"].numpy())
        assert np.array_equal(each.confidence, output["scores"].numpy())
        assert np.array_equal(each.class_id, output["labels"].numpy() - 1)
        assert each.mask.shape == (10, *image.shape[1:])
        assert np.array_equal(each.mask.to_dense(), output["masks"][:, 0].numpy() >= 0.5)
        assert (each.xyxy.dtype, each.confidence.dtype) == (np.float32, np.float32)
        assert each.class_id.dtype == np.int64
        assert (np.diff(each.confidence) <= 0).all()


def test_only_what_reaches_the_threshold_is_pasted(detector, images, monkeypatch):
    every = detect(detector.eval(), images, "float32")
    threshold = float(every[0].confidence[4])
    pasted = []
    paste = evaluation.compact_masks
    monkeypatch.setattr(
        evaluation, "compact_masks", lambda *each: pasted.append(len(each[0])) or paste(*each)
    )
    found = detect(detector, images, "float32", threshold=threshold)
    assert pasted == [len(each) for each in found]
    for each, all_of_it in zip(found, every, strict=True):
        assert each == all_of_it[all_of_it.confidence >= np.float32(threshold)]
    assert len(found[0]) == 5
    for nothing in detect(detector, images, "float32", threshold=1.1):
        assert len(nothing) == len(nothing.mask) == 0


def test_boxes_alone_have_no_masks(make_recipe, images):
    torch.manual_seed(0)
    detector = build_detector(make_recipe("model.detector=faster_rcnn").model, 11).eval()
    (one, _) = detect(detector, images, "bfloat16")
    assert len(one) == 10
    assert one.mask is None


def test_the_progress_is_optional(detector, handwriting):
    data = CocoInstances(handwriting, "val", transform=evaluation_transform())
    arguments = {"precision": "float32", "batch_size": 2, "masks": True}
    _, metrics = evaluate_detector(detector, data, **arguments)
    assert metrics.results
    assert "masks" in data[(0, 0)][1], "the data set keeps its masks"


def settings(num_workers, folder):
    return [
        "training.epochs=1",
        f"training.num_workers={num_workers}",
        f"data.folder={json.dumps(folder)}",
    ]


def test_val_gives_the_figures_of_a_run_with_workers(make_recipe, many_sizes, tmp_path, display):
    train_recipe(make_recipe(*settings(2, str(many_sizes))), tmp_path / "run", display=display)
    last = RunFolder(tmp_path / "run").last
    found = evaluate_weights(last, batch_size=2)
    assert found == read_description(last).metrics
    assert found["box_ap_per_class"]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_val_gives_the_figures_of_two_processes(num_workers, make_recipe, many_sizes, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    chosen = make_recipe(*settings(num_workers, str(many_sizes)), "training.batch_size=4")
    chosen = chosen.model_copy(
        update={"training": chosen.training.model_copy(update={"micro_batch_size": 2})}
    )
    recipe.write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    botvision = Path(sys.executable).with_name("botvision")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "--no-python", str(botvision), "train", str(recipe), "--name", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    last = RunFolder(tmp_path / "runs" / "instance_segmentation" / "run").last
    found = evaluate_weights(last, batch_size=2)
    assert found == read_description(last).metrics
