"""A photograph of 24 megapixels with 100 masks needs less than 1 GiB above the model."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, resource, sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from botvision.datasets.coco.augmentation import evaluation_transform
from botvision.datasets.coco.dataset import CocoInstances
from botvision.detection import mask_rcnn
from botvision.images.decode import read_image
from botvision.tasks.detection.writer import draw_detections
from botvision.tasks.detection.evaluation import detect, evaluate_detector

os.chdir(sys.argv[2])
height, width = 4000, 6000
tiles = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
os.makedirs("images")
Image.fromarray(tiles).resize((width, height)).save("images/a.jpg")
os.makedirs("annotations")
box = {"category_id": 1, "area": 3e6, "iscrowd": 0}
content = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}],
    "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    "annotations": [
        {**box, "id": i + 1, "image_id": 1, "bbox": [10 * i, 10 * i, 2000, 1500]}
        for i in range(100)
    ],
}
Path("annotations/instances_val.json").write_text(json.dumps(content))

torch.manual_seed(0)
heads = {"fpn_channels": 16, "box_head_width": 32, "mask_head_channels": 16, "mask_head_layers": 1}
model = mask_rcnn("botnet_tiny", 3, image_size=128, box_score_thresh=0.0, **heads).eval()
detect(model, [torch.rand(3, 100, 150)], "float32")

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

if sys.argv[1] == "predict":
    image = F.pil_to_tensor(read_image(Path("images/a.jpg")))
    (found,) = detect(model, [F.to_dtype(image, torch.float32, scale=True)], "float32")
    assert len(found) == 100
    assert found.mask.shape == (100, height, width)
    assert draw_detections(image, found, ["one", "two"]).size == (width, height)
else:
    data = CocoInstances(Path(), "val", transform=evaluation_transform())
    _, metrics = evaluate_detector(model, data, precision="float32", batch_size=1, masks=True)
    assert len(metrics.results) == 100
    assert metrics.results[0]["segmentation"]["size"] == [height, width]
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", ["predict", "evaluate"])
def test_a_large_photograph(what, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
