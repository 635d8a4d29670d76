"""A tiny data set, a tiny detector's recipe and one trained run, shared by all tests."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The detector is as narrow as it can be, and every region it looks at is kept as a detection, so
# that a network of four steps still has something to report.
TINY = (
    "model.image_size=64",
    "model.fpn_channels=16",
    "model.box_head_width=32",
    "model.mask_head_channels=16",
    "model.mask_head_layers=1",
    "model.rpn_pre_nms_top_n_train=50",
    "model.rpn_pre_nms_top_n_test=50",
    "model.rpn_post_nms_top_n_train=20",
    "model.rpn_post_nms_top_n_test=20",
    "model.box_batch_size_per_image=8",
    "model.box_detections_per_img=10",
    "model.box_score_thresh=0.0",
    "data.scale_jitter=[0.8, 1.25]",
    "data.flip=0.5",
    "training.epochs=2",
    "training.batch_size=2",
    "training.warmup_steps=2",
    "training.log_every=1",
    "training.evaluate_every=1",
    "training.save_every=1",
    "training.workers=0",
)


class Shown:
    """A display that remembers what it was told."""

    def __init__(self, done, total):
        self.begun = (done, total)
        self.steps = []
        self.evaluations = []

    def step(self, done, losses, images_per_second):
        assert images_per_second > 0
        self.steps.append((done, losses))

    @contextlib.contextmanager
    def evaluating(self):
        yield lambda done, total: None

    def evaluated(self, epoch, metrics, *, best):
        self.evaluations.append((epoch, metrics, best))


class Displays(list):
    """``display=`` of the loop; the displays it made, in order."""

    @contextlib.contextmanager
    def __call__(self, done, total):
        self.append(Shown(done, total))
        yield self[-1]


@pytest.fixture
def display():
    return Displays()


@pytest.fixture(scope="session")
def tiny():
    """Overrides that make the demo's recipe tiny."""
    return TINY


@pytest.fixture(scope="session")
def handwriting(tmp_path_factory):
    """A COCO folder of 8 training and 6 validation scenes of 64 pixels; read only."""
    from botvision.data.handwriting import write_handwriting

    folder = tmp_path_factory.mktemp("data") / "handwriting"
    write_handwriting(folder, train=8, val=6, size=64, progress=lambda done, total: None)
    # Ids with gaps, so that a label that is taken for an id shows.
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["id"] = 10 * category["id"] + 3
        for annotation in content["annotations"]:
            annotation["category_id"] = 10 * annotation["category_id"] + 3
        path.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def make_recipe(handwriting):
    """A function of overrides that gives the tiny recipe on the tiny data."""
    from botvision.recipes.reading import read_recipe

    def make(*overrides, data=handwriting):
        return read_recipe("demo", [*TINY, f"data.folder={json.dumps(str(data))}", *overrides])

    return make


@pytest.fixture(scope="session")
def trained_run(make_recipe, tmp_path_factory):
    """Folder of a finished run of the tiny recipe: 2 epochs of 4 steps; read only."""
    from botvision.recipes.running import train_recipe
    from botvision.training.run_folder import RunFolder

    path = tmp_path_factory.mktemp("runs") / "trained"
    train_recipe(make_recipe(), path, display=Displays())
    return RunFolder(path)


@pytest.fixture
def run_copy(trained_run, tmp_path):
    """The finished run, to be spoilt."""
    path = tmp_path / "copied run"
    shutil.copytree(trained_run.path, path)
    return type(trained_run)(path)


@pytest.fixture(scope="session")
def predictor(trained_run):
    import botvision

    return botvision.load(trained_run.best)


@pytest.fixture(scope="session")
def val_picture(handwriting):
    """Path of a validation scene."""
    return handwriting / "images" / "val_000000.jpg"


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs ``botvision`` in this process; gives exit status, standard output and error."""
    from botvision.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["botvision", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def command():
    """Runs ``botvision`` in a process of its own, as a user does."""
    import torch

    # Sums over another number of threads differ in their last bits.
    threads = str(torch.get_num_threads())

    def run(*arguments, cwd=None, check=False, timeout=120):
        done = subprocess.run(
            [sys.executable, "-c", "from botvision.cli import main; main()", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def tree():
    """A function that gives a folder's files and their bytes, to see what a command touched."""

    def read(folder: Path):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }

    return read
