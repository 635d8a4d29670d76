"""Random mutations of a sound annotation file: an error in one line, or sound data."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from botvision.datasets.check.report import check_folder
from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.coco.file import read_annotations
from botvision.errors import BotvisionError

SIZES = {"a.png": (40, 30), "b.png": (21, 11)}
POLYGON = [4, 5, 14, 5, 14, 25]
SOUND = {
    "info": {"year": 2017},
    "images": [
        {"id": i, "file_name": name, "width": size[0], "height": size[1]}
        for i, (name, size) in enumerate(SIZES.items(), start=11)
    ],
    "categories": [{"id": 90, "name": "cup"}, {"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 11, "category_id": 1, "bbox": [4, 5, 10, 20]},
        {
            "id": 2,
            "image_id": 11,
            "category_id": 90,
            "bbox": [4.0, 5.5, 10.25, 20],
            "segmentation": [POLYGON, [1, 1, 9, 1, 9, 9, 1, 9]],
            "area": 100.5,
            "iscrowd": 0,
        },
        {
            "id": 3,
            "image_id": 11,
            "category_id": 1,
            "bbox": [2, 3, 9, 9],
            "segmentation": {"size": [30, 40], "counts": [100, 50, 1050]},
            "iscrowd": 1,
        },
        {
            "id": 4,
            "image_id": 12,
            "category_id": 1,
            "bbox": [1, 1, 9, 9],
            "segmentation": {"size": [11, 21], "counts": "<92000000000000000h3"},
        },
    ],
}
NUMBERS = st.one_of(
    st.integers(-50, 50),
    st.integers(),
    st.floats(),
    st.sampled_from([10**30, -(10**400), 2**63, 2**64, 1e308, -0.0, 1e-320]),
)
LEAVES = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.text(max_size=6),
    st.sampled_from(
        ["a.png", "../a.png", "/etc/passwd", "", ".", "\0", "a\nb.png", "\ud800", "x" * 5000, "~"]
    ),
)
VALUES = st.one_of(
    LEAVES,
    st.lists(LEAVES, max_size=6),
    st.lists(st.lists(NUMBERS, max_size=8), max_size=3),
    st.dictionaries(st.sampled_from(["id", "size", "counts", "name"]), LEAVES, max_size=3),
)


def places(node, path=()):
    """Paths to everything inside a JSON value."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


@st.composite
def mutants(draw):
    content = copy.deepcopy(SOUND)
    for _ in range(draw(st.integers(1, 4))):
        # A path of the sound file, as far as it still leads: parts matter before their numbers.
        path = draw(st.sampled_from(sorted(places(SOUND), key=len)))
        node = content
        for key in path[:-1]:
            node = node[key] if has(node, key) else None
        if not has(node, path[-1]):
            continue
        kind = draw(st.sampled_from(["drop", "replace", "twice", "other name", "text", "swap"]))
        key, value = path[-1], node[path[-1]]
        if kind == "drop":
            del node[key]
        elif kind == "replace":
            node[key] = draw(VALUES)
        elif kind == "twice" and isinstance(node, list):
            node.append(copy.deepcopy(value))
        elif kind == "other name" and isinstance(node, dict):
            node[draw(st.text(max_size=3))] = node.pop(key)
        elif kind == "text":
            node[key] = str(value)
        else:
            other = draw(st.sampled_from([*node] if isinstance(node, dict) else range(len(node))))
            node[key], node[other] = node[other], node[key]
    return content


def has(node, key):
    if isinstance(node, list):
        return isinstance(key, int) and key < len(node)
    return isinstance(node, dict) and key in node


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "images").mkdir()
    (folder / "annotations").mkdir()
    for name, size in SIZES.items():
        Image.new("RGB", size, (10, 200, 30)).save(folder / "images" / name)
    return folder


def read_all(folder):
    """Every item of the data set, each looked at."""
    data = CocoInstances(folder, "train")
    for index in range(len(data)):
        image, target = data[0, index]
        height, width = SIZES[Path(data.annotations.images[index]["file_name"]).name][::-1]
        assert image.shape == (3, height, width)
        count = len(target["labels"])
        assert target["boxes"].shape == (count, 4)
        assert target["masks"].shape == (count, height, width)
        assert set(target["masks"].unique().tolist()) <= {0, 1}
        assert ((target["labels"] >= 1) & (target["labels"] <= len(data.categories))).all()
        boxes = target["boxes"].as_subclass(torch.Tensor)
        assert torch.isfinite(boxes).all()
        assert (boxes >= 0).all()
        assert (boxes[:, ::2] <= width + 1e-3).all()
        assert (boxes[:, 1::2] <= height + 1e-3).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()


def readable(folder):
    """Whether the annotation file is taken, or what is said of it."""
    try:
        CocoInstances(folder, "train")
    except BotvisionError as error:
        return str(error)
    return None


def check_mutant(folder, text):
    (folder / "annotations" / "instances_train.json").write_text(
        text, encoding="utf-8", errors="surrogatepass"
    )
    refused = None
    try:
        read_all(folder)
    except BotvisionError as error:
        refused = str(error)
        assert refused
        assert len(refused.splitlines()) == 1
    report = check_folder(
        folder, ["train"], image_size=64, num_workers=0, progress=lambda what, done, total: None
    )
    found = report.as_json()
    assert report.trainable == (refused is None), (refused, found["findings"])
    if refused is not None:
        messages = [finding["message"] for finding in found["findings"]]
        assert readable(folder) in [None, *messages]
        assert all(len(message.splitlines()) == 1 for message in messages)
    for what in ("annotations", "image_files"):
        counts = found["splits"]["train"][what]
        assert counts["accepted"] + counts["skipped"] + counts["refused"] == counts["total"]
    json.dumps(found, allow_nan=False)


def bounded(examples):
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


def test_the_sound_file_is_taken(folder):
    check_mutant(folder, json.dumps(SOUND))
    path = folder / "annotations" / "instances_train.json"
    assert read_annotations(path).tally.records == 4
    data = CocoInstances(folder, "train")
    assert [data[0, i][1]["labels"].tolist() for i in range(2)] == [[1, 2], [1]]
    assert np.asarray(data[0, 1][1]["masks"]).any()


@bounded(100)
@given(content=mutants())
def test_mutations(folder, content):
    check_mutant(folder, json.dumps(content))


@bounded(40)
@given(cut=st.integers(0, 2000), put=st.text(max_size=3), length=st.integers(0, 30))
def test_damaged_text(folder, cut, put, length):
    text = json.dumps(SOUND)
    check_mutant(folder, text[:cut] + put + text[cut + length :])


@pytest.mark.slow
@bounded(20_000)
@given(content=mutants())
def test_many_mutations(folder, content):
    check_mutant(folder, json.dumps(content))
