"""Coloured shapes in class folders and in tar files, and tasks over them."""

import tarfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

from botvision.classification.settings import ClassifierSettings, ClassImageSettings
from botvision.classification.task import ClassificationTask

SHAPES = {"circle": (220, 80, 60), "cross": (70, 200, 70), "square": (80, 100, 225)}
TINY = {"stem_type": "deep", "stem_width": 4, "channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}


def shape(kind, rng):
    """A shape of about its own colour anywhere on a dark picture of 32 x 32."""
    image = Image.new("RGB", (32, 32), tuple(rng.integers(0, 70, 3).tolist()))
    draw = ImageDraw.Draw(image)
    colour = tuple((rng.integers(-30, 31, 3) + SHAPES[kind]).tolist())
    x, y, radius = *rng.integers(11, 21, 2).tolist(), int(rng.integers(7, 11))
    box = (x - radius, y - radius, x + radius, y + radius)
    if kind == "circle":
        draw.ellipse(box, outline=colour, width=3)
    elif kind == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.line((x - radius, y, x + radius, y), fill=colour, width=3)
        draw.line((x, y - radius, x, y + radius), fill=colour, width=3)
    return image


def write_shapes(folder, count, *, seed=0):
    rng = np.random.default_rng(seed)
    for kind in SHAPES:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            shape(kind, rng).save(folder / kind / f"{number}.png")


def write_tar(folder, path):
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=".")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Folder of class folders: 40 training and 12 validation pictures of each; read only."""
    folder = tmp_path_factory.mktemp("classes") / "shapes"
    write_shapes(folder / "train", 40, seed=0)
    write_shapes(folder / "val", 12, seed=1)
    return folder


@pytest.fixture(scope="session")
def archives(shapes, tmp_path_factory):
    """The same as tar files; read only."""
    folder = tmp_path_factory.mktemp("archives")
    write_tar(shapes / "train", folder / "shapes-train.tar")
    write_tar(shapes / "val", folder / "shapes-TEST.tar")
    return folder


@pytest.fixture
def make_task(shapes):
    """Builds a task of a narrow BoTNet on the shapes."""

    def make(*, folder=shapes, model=None, precision="float32", workers=0, batch_size=16, **data):
        settings = {
            "classifier": "botnet26",
            "classifier_arguments": TINY,
            "image_size": 32,
            "stem": "cifar",
            **(model or {}),
        }
        images = {"crop_padding": 2, "crop_share": 1.0, "folder": str(folder), **data}
        return ClassificationTask(
            ClassifierSettings(**settings),
            ClassImageSettings(**images),
            batch_size=batch_size,
            workers=workers,
            precision=precision,
            seed=0,
        )

    return make
