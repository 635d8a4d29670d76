"""The main job end to end on the embedded data: write, train, evaluate, look."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from botvision import __version__
from botvision.datasets.coco.file import read_annotations
from botvision.datasets.handwriting import write_handwriting
from botvision.datasets.layouts import find_coco_split
from botvision.errors import BotvisionError
from botvision.files import write_json
from botvision.images.decode import read_image
from botvision.inspection.attention_maps import attention_of_pixel, draw_attention_maps
from botvision.predict.evaluation import evaluate
from botvision.predict.files import predict_files
from botvision.predict.loading import load
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import resume_run, train_recipe
from botvision.training.log import ShowRun
from botvision.training.run_folder import RunFolder

_SCENES = {"train": 2400, "val": 200}
_QUICK_SCENES = {"train": 64, "val": 16}
_QUICK = ("training.epochs=2", "training.warmup_steps=2", "training.num_workers=0")
_MARK = ".botvision-demo.json"  # tells a demo's folder from any other that holds "data" or "run"
_WRITTEN = ("data", "run", "predictions", "attention.png", "summary.json")
_PREDICTED = 12  # validation scenes to draw

Counting = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def run_demo(
    folder: Path,
    *,
    quick: bool = False,
    overwrite: bool = False,
    display: ShowRun | None = None,
    counting: Counting | None = None,
) -> dict[str, Any]:
    """Write the handwriting scenes, train on them, evaluate and draw.

    An interrupted demo is resumed.

    Args:
        folder: Folder for ``data/``, ``run/``, ``predictions/``, ``attention.png`` and
            ``summary.json``.
        quick: A smoke run of seconds rather than minutes; its figures mean nothing.
        overwrite: Whether to start anew in a folder that holds an earlier demo.
        display: Shows the training, see ``training.loop.train``; None: silent.
        counting: Shows other work: called with its name, it gives a context with a function of
            (done, total); None: silent.

    Returns:
        The content of ``summary.json``: ``box_ap`` and ``mask_ap`` of the best weights on the
        validation scenes, ``seconds`` of this call, their parts, and what made them.

    Raises:
        BotvisionError: If the folder holds a finished demo or something else.
    """
    started = time.perf_counter()
    counting = counting or _silent
    scenes = _QUICK_SCENES if quick else _SCENES
    _make_room(folder, scenes, overwrite=overwrite)
    data, run = folder / "data", RunFolder(folder / "run")
    parts: dict[str, float] = {}

    if not data.exists():
        with _timed(parts, "data"), counting("write scenes") as progress:
            write_handwriting(data, **scenes, progress=progress)
    overrides = [f"data.folder={json.dumps(str(data))}", *(_QUICK if quick else ())]
    with _timed(parts, "training"):
        if run.state.exists():
            resume_run(run.path, display=display)
        else:
            shutil.rmtree(run.path, ignore_errors=True)  # stopped before its first state
            train_recipe(read_recipe("demo", overrides), run.path, display=display)
    with _timed(parts, "evaluation"), counting("evaluate") as progress:
        metrics = evaluate(run.best, data, batch_size=16, progress=progress)
    with _timed(parts, "images"), counting("draw") as progress:
        _draw(folder, data, run.best, progress)

    summary = {
        "box_ap": metrics["box_ap"],
        "mask_ap": metrics["mask_ap"],
        "seconds": round(time.perf_counter() - started, 1),
        "seconds_of": parts,
        "metrics": metrics,
        "made_by": {
            "command": "botvision demo --quick" if quick else "botvision demo",
            "version": __version__,
            "scenes": scenes,
            "recipe": read_recipe(str(run.recipe)).model_dump(mode="json"),
        },
    }
    write_json(folder / "summary.json", summary)
    return summary


def _make_room(folder: Path, scenes: dict[str, int], *, overwrite: bool) -> None:
    """Make the folder, or see that it is one to go on with; remove only what a demo wrote."""
    mark = folder / _MARK
    if folder.exists() and not mark.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BotvisionError(f"{folder}: expected a new folder or an earlier demo's")
    if mark.is_file() and overwrite:
        for path in (folder / name for name in _WRITTEN):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    elif mark.is_file():
        advice = "overwrite it, or choose another folder"
        if (folder / "summary.json").exists():
            raise BotvisionError(f"{folder}: holds a finished demo; {advice}")
        if json.loads(mark.read_text()) != scenes:
            raise BotvisionError(
                f"{folder}: holds an unfinished demo of other sizes (quick or not); {advice}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(mark, scenes)


def _draw(folder: Path, data: Path, weights: Path, progress: Callable[[int, int], None]) -> None:
    predictor = load(weights)
    where = find_coco_split(data, "val")
    truth = read_annotations(where.annotations)
    paths = [where.images / record["file_name"] for record in truth.images[:_PREDICTED]]
    predict_files(predictor, paths, folder / "predictions", progress=progress)
    x, y, width, height = truth.instances[truth.images[0]["id"]][0]["bbox"]
    at = (int(x + width / 2), int(y + height / 2))
    image = read_image(paths[0])
    found = attention_of_pixel(predictor, image, at)
    target = folder / "attention.png"
    draw_attention_maps(image, at, found.maps, target, rollout=found.rollout)


@contextmanager
def _silent(_name: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None


@contextmanager
def _timed(parts: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    parts[name] = round(time.perf_counter() - started, 1)
