"""``botvision data shard``, and training on what it writes: from here and from an address."""

import contextlib
import json
import os
import signal

import pytest

from botvision.datasets.coco.sharding import shard_coco
from botvision.errors import Interrupted
from botvision.recipes.running import resume_run, train_recipe
from botvision.training.run_folder import RunFolder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BOTVISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def shards(handwriting, tmp_path_factory):
    """The eight training scenes in three shards or more."""
    out = tmp_path_factory.mktemp("shards") / "out"
    shard_coco(handwriting, out, shard_size=10_000, progress=lambda *_: None)
    assert len(list((out / "images" / "train").glob("*.tar"))) >= 3
    return out


def test_command(cli, handwriting, tmp_path, tree):
    before = tree(handwriting)
    status, out, error = cli("data", "shard", handwriting, tmp_path / "out")
    assert status == 0, error
    assert "train: 8 images in 1 shards" in out
    assert "val: 6 images in 1 shards" in out
    assert tree(handwriting) == before
    status, _, error = cli("data", "shard", handwriting, tmp_path / "out")
    assert status == 2
    assert error.startswith(f"error: {tmp_path / 'out'}: already exists")
    status, out, error = cli("data", "check", tmp_path / "out", "--json")
    assert status == 0, error
    assert json.loads(out)["splits"]["train"]["image_files"]["accepted"] == 8


@pytest.mark.parametrize("make", [lambda _: None, lambda folder: folder.mkdir()])
def test_no_data_set(cli, make, tmp_path):
    make(tmp_path / "in")
    status, _, error = cli("data", "shard", tmp_path / "in", tmp_path / "out")
    assert status == 2
    assert error.startswith("error: ")
    assert str(tmp_path / "in") in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_other_layouts_are_converted_first(cli, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.yaml").write_text("names: [cat]")
    status, _, error = cli("data", "shard", tmp_path / "in", tmp_path / "out")
    assert status == 2
    assert "YOLO layout: convert with: botvision data convert" in error


def test_training_is_the_same_from_anywhere(make_recipe, shards, display, tmp_path, monkeypatch):
    here, far = RunFolder(tmp_path / "here"), RunFolder(tmp_path / "far")
    train_recipe(make_recipe(data=shards), here.path, display=display)
    sizes = [path.stat().st_size for path in shards.rglob("*.tar")]
    monkeypatch.setenv("BOTVISION_CACHE_GIB", str(2 * max(sizes) / 2**30))

    @contextlib.contextmanager
    def stopping(*arguments):
        with display(*arguments) as shown:
            seen = shown.step

            def step(figures):
                seen(figures)
                if figures.step == 2:  # seen in the next one, in the middle of an epoch
                    os.kill(os.getpid(), signal.SIGTERM)

            shown.step = step
            yield shown

    recipe = make_recipe("training.num_workers=2", data=f"file://{shards}")
    with pytest.raises(Interrupted):
        train_recipe(recipe, far.path, display=stopping)
    assert [step for step, _ in display[-1].steps] == [1, 2, 3]
    resume_run(far.path, display=display)
    assert here.metrics.read_text() == far.metrics.read_text()


def test_evaluation_and_preview_at_an_address(
    cli, trained_run, handwriting, shards, tiny, tmp_path
):
    figures = []
    for data in (handwriting, f"file://{shards}"):
        status, out, error = cli("val", trained_run.best, "--data", data, "--json")
        assert status == 0, error
        figures.append(json.loads(out))
    assert figures[0] == figures[1]
    sets = [part for override in tiny for part in ("--set", override)]
    status, _, error = cli(
        *("data", "preview", "demo", "--data", f"file://{shards}", *sets),
        *("--output", tmp_path / "seen.png"),
    )
    assert status == 0, error
    assert (tmp_path / "seen.png").stat().st_size > 1000
