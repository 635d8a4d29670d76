"""The main job end to end, made small."""

import contextlib
import json
from functools import partial

import pytest
from PIL import Image

import botvision.demo
from botvision.demo import run_demo
from botvision.errors import BotvisionError
from botvision.recipes.reading import read_recipe as read_library_recipe

pytestmark = pytest.mark.usefixtures("undrawn")


@contextlib.contextmanager
def counting(name):
    yield lambda done, total: None


class StopError(Exception):
    pass


@pytest.fixture
def demo(monkeypatch, tiny, tmp_path, display):
    """Runs the quick demo with a tiny recipe and a handful of scenes."""
    monkeypatch.setattr(botvision.demo, "_QUICK_SCENES", {"train": 4, "val": 3})
    monkeypatch.setattr(botvision.demo, "_SCENES", {"train": 6, "val": 2})
    write = botvision.demo.write_handwriting
    monkeypatch.setattr(botvision.demo, "write_handwriting", partial(write, size=64))
    monkeypatch.setattr(
        botvision.demo,
        "read_recipe",
        lambda name, overrides=(): read_library_recipe(name, [*overrides, *tiny]),
    )

    def run(folder=tmp_path / "demo", *, quick=True, overwrite=False):
        return run_demo(
            folder, quick=quick, overwrite=overwrite, display=display, counting=counting
        )

    return run


@pytest.fixture
def interrupted(demo, monkeypatch, tmp_path):
    """A demo that was stopped in its training, or before."""

    def run(place, **options):
        with monkeypatch.context() as patch:
            if place == "training":
                import botvision.training.loop as loop

                write = loop.write_state

                def writing(path, state):
                    write(path, state)
                    if state["progressed"]["step"] == 3:
                        raise StopError

                patch.setattr(loop, "write_state", writing)
            else:
                name = {"data": "train_recipe", "run": "evaluate"}[place]

                def stop(*_, **__):
                    raise StopError

                patch.setattr(botvision.demo, name, stop)
            with pytest.raises(StopError):
                demo(**options)
        return tmp_path / "demo"

    return run


def test_writes_all_it_promises(demo, tmp_path, tree):
    summary = demo()
    folder = tmp_path / "demo"
    assert summary == json.loads((folder / "summary.json").read_text())
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        *("data", "run", "predictions", "attention.png", "summary.json")
    }
    assert summary["box_ap"] == summary["metrics"]["box_ap"]
    assert summary["mask_ap"] == summary["metrics"]["mask_ap"]
    assert set(summary["seconds_of"]) == {"data", "training", "evaluation", "images"}
    assert summary["seconds"] >= 0.9 * sum(summary["seconds_of"].values())
    made_by = summary["made_by"]
    assert made_by["scenes"] == {"train": 4, "val": 3}
    assert made_by["command"] == "botvision demo --quick"
    assert made_by["recipe"]["data"]["folder"] == str(folder / "data")
    predictions = json.loads((folder / "predictions" / "predictions.json").read_text())
    assert len(predictions["images"]) == 3
    assert len(list((folder / "predictions").glob("*_jpg.jpg"))) == 3
    with Image.open(folder / "attention.png") as image:
        assert image.width > 500
    # A second one refuses and touches nothing, until it is told to.
    before = tree(folder)
    with pytest.raises(BotvisionError, match="holds a finished demo; overwrite it"):
        demo()
    assert tree(folder) == before
    again = demo(overwrite=True)
    assert again["metrics"] == summary["metrics"]


def test_interrupted_training_goes_on(interrupted, demo, display, tmp_path):
    folder = interrupted("training")
    data = folder / "data" / "annotations" / "instances_val.json"
    written = data.stat().st_mtime_ns
    summary = demo()
    assert display[-1].begun == (3, 4)
    assert data.stat().st_mtime_ns == written
    assert summary["metrics"] == demo(tmp_path / "other")["metrics"]


@pytest.mark.parametrize("place", ["data", "run"])
def test_interrupted_elsewhere_goes_on(place, interrupted, demo):
    folder = interrupted(place)
    assert not (folder / "summary.json").exists()
    assert demo()["made_by"]["scenes"] == {"train": 4, "val": 3}


@pytest.mark.parametrize("place", ["data", "training"])
def test_a_quick_demo_is_not_gone_on_with_as_a_whole_one(place, interrupted, demo):
    # Else the summary would say 2,400 scenes where there were 64.
    folder = interrupted(place, quick=True)
    written = (folder / "data" / "annotations" / "instances_train.json").read_bytes()
    with pytest.raises(BotvisionError, match="overwrite"):
        demo(quick=False)
    assert (folder / "data" / "annotations" / "instances_train.json").read_bytes() == written
    assert demo(quick=False, overwrite=True)["made_by"]["scenes"] == {"train": 6, "val": 2}


def test_folder_with_something_else(demo, tmp_path, tree):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("precious")
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(BotvisionError, match="expected a new folder or an earlier demo's"):
            demo(overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["data", "run"])
def test_somebody_elses_folder_of_the_same_name_is_never_touched(name, overwrite, demo, tmp_path):
    # As in a project's own folder: botvision demo --output . --overwrite
    mine = tmp_path / "demo" / name / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    other = tmp_path / "demo" / "source.py"
    other.write_text("precious too")
    with contextlib.suppress(BotvisionError):
        demo(overwrite=overwrite)
    assert mine.is_file(), "somebody's files were deleted"
    assert other.is_file(), "somebody's files were deleted"


def test_overwriting_keeps_what_is_not_the_demos(demo, tmp_path):
    demo()
    note = tmp_path / "demo" / "my notes.txt"
    note.write_text("precious")
    with contextlib.suppress(BotvisionError):
        demo(overwrite=True)
    assert note.read_text() == "precious"


def test_empty_folder_with_any_name(demo, tmp_path):
    # The name goes into a recipe, where a # would begin a comment.
    folder = tmp_path / "demo #2: a [try]"
    folder.mkdir()
    demo(folder)
