"""COCO folders for the tests of this folder, written without the code under test."""

import json

import numpy as np
import pytest
from PIL import Image

CATEGORIES = [{"id": 90, "name": "cup"}, {"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}]


@pytest.fixture
def write_coco(tmp_path):
    """A function that writes a COCO folder: noise images of the sizes the records say."""

    def write(images, annotations=(), *, categories=CATEGORIES, split="train"):
        folder = tmp_path / "coco"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "annotations").mkdir(exist_ok=True)
        for record in images:
            noise = np.random.default_rng(record["id"]).integers(
                0, 256, (record["height"], record["width"], 3), dtype=np.uint8
            )
            Image.fromarray(noise).save(folder / "images" / record["file_name"])
        content = {
            "images": list(images),
            "annotations": [{"id": i + 1, **each} for i, each in enumerate(annotations)],
            "categories": categories,
        }
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture
def random_polygons():
    """A function that draws annotations of one image: one to three polygons each."""

    def draw(rng, number, *, image_id=1, height=48, width=64):
        annotations = []
        for _ in range(number):
            polygons = []
            for _ in range(rng.integers(1, 4)):
                center = rng.uniform((0, 0), (width, height))
                corners = center + rng.uniform(-18, 18, (rng.integers(3, 9), 2))
                # Corners on the edge and between pixels, but all inside the image.
                corners = np.clip(corners, 0, (width, height)).round(rng.integers(0, 3))
                polygons.append(corners.ravel().tolist())
            x, y = np.concatenate(polygons).reshape(-1, 2).T
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": int(rng.choice([1, 5, 90])),
                    "bbox": [x.min(), y.min(), max(np.ptp(x), 0.5), max(np.ptp(y), 0.5)],
                    "segmentation": polygons,
                    "area": 1.0,
                    "iscrowd": 0,
                }
            )
        return annotations

    return draw
