"""A COCO folder with one sound image and one sound annotation, to be made unsound."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def content():
    """Annotations of one image of 40 x 30 pixels."""
    return {
        "images": [{"id": 11, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [
            {"id": 90, "name": "cup"},
            {"id": 1, "name": "cat"},
            {"id": 5, "name": "dog"},
        ],
        "annotations": [annotation(71)],
    }


def annotation(number, **changes):
    return {"id": number, "image_id": 11, "category_id": 5, "bbox": [4, 5, 10, 20], **changes}


@pytest.fixture
def annotate(content):
    """A function that adds an annotation to the sound one."""

    def add(number=72, **changes):
        content["annotations"].append(annotation(number, **changes))

    return add


@pytest.fixture
def write(tmp_path, content):
    """A function that writes the content, and images of the sizes it names."""

    def run():
        folder = tmp_path / "coco"
        (folder / "images").mkdir(parents=True)
        (folder / "annotations").mkdir()
        for image in content["images"]:
            pixels = np.full((image["height"], image["width"], 3), 50, np.uint8)
            Image.fromarray(pixels).save(folder / "images" / image["file_name"])
        path = folder / "annotations" / "instances_train.json"
        path.write_text(json.dumps(content))
        return folder

    return run


@pytest.fixture
def read(write):
    """A function that writes the content and reads its annotations."""
    from botvision.datasets.coco.file import read_annotations

    return lambda: read_annotations(write() / "annotations" / "instances_train.json")


@pytest.fixture
def refused(read):
    """A function that expects the content to be refused in one line with all these words."""
    from botvision.errors import BotvisionError

    def expect(*words):
        with pytest.raises(BotvisionError) as caught:
            read()
        message = str(caught.value)
        assert "\n" not in message
        for word in ("instances_train.json", *words):
            assert str(word) in message

    return expect


@pytest.fixture
def skipped(read, content):
    """A function that expects all annotations but the sound one to be left out, and counted."""

    def expect():
        before = len(content["annotations"])
        result = read()
        kept = [each["id"] for own in result.instances.values() for each in own]
        assert kept == [71]
        assert sum(result.skipped.values()) + len(kept) == before

    return expect
