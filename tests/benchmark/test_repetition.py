"""Recipes with several seeds: what is done is kept, what was interrupted goes on."""

import contextlib
import json
import os
import signal
import statistics

import pytest
from PIL import Image

from botvision.benchmark import repetition
from botvision.errors import BotvisionError, Interrupted
from botvision.recipes.reading import read_recipe

pytestmark = pytest.mark.usefixtures("undrawn")
SMALL = (
    'model.classifier_arguments={"stem_type": "deep", "stem_width": 4, "channels": [8, 8, 16, 16]}',
    "model.image_size=32",
    "training.epochs=2",
    "training.batch_size=4",
    "training.num_workers=0",
)


@pytest.fixture
def recipes(tmp_path):
    for split, count in (("train", 6), ("val", 4)):
        for shade, name in enumerate(("dark", "light")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.effect_noise((32, 32), 40 + 40 * shade).convert("RGB")
                image.save(tmp_path / "data" / split / name / f"{number}.png")

    def make(*names, **changes):
        folder = f"data.folder={json.dumps(str(tmp_path / 'data'))}"
        extra = [f"{key}={value}" for key, value in changes.items()]
        return [read_recipe(name, [*SMALL, folder, *extra]) for name in names]

    return make


NAMES = ("small_cifar_resnet", "small_cifar_botnet")


def repeat(recipes, seeds, folder, display):
    notes = []
    rows = repetition.repeat_recipes(recipes, seeds, folder, display=display, note=notes.append)
    return rows, notes


def last_top1(folder, name, seed):
    text = (folder / "classification" / f"{name}_seed{seed}" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()][-1]["metrics"]["top1"]


def test_runs_are_kept_and_added_to(recipes, tmp_path, display):
    folder = tmp_path / "out"
    rows, notes = repeat(recipes(*NAMES), 1, folder, display)
    assert len(notes) == 2
    assert rows[0].deviation is None
    rows, notes = repeat(recipes(*NAMES), 2, folder, display)
    assert [note.rpartition("/")[2] for note in notes] == [f"{name}_seed1" for name in NAMES]
    for row, name in zip(rows, NAMES, strict=True):
        values = [last_top1(folder, name, seed) for seed in range(2)]
        assert (row.recipe, row.metric, row.seeds) == (name, "top1", (0, 1))
        assert row.values == tuple(values)
        assert row.mean == pytest.approx(sum(values) / 2)
        assert row.deviation == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert row.processor_seconds > 0
        assert row.seconds > 0
    summary = json.loads((folder / "summary.json").read_text())
    assert [row["mean"] for row in summary["recipes"]] == [row.mean for row in rows]
    with Image.open(folder / "summary.png") as image:
        assert image.width > 800
    assert repeat(recipes(*NAMES), 2, folder, display)[1] == []


def test_an_interrupted_run_goes_on(recipes, tmp_path, display):
    whole, _ = repeat(recipes(NAMES[1]), 1, tmp_path / "whole", display)
    steps = display[-1].steps[-1][0]

    @contextlib.contextmanager
    def stopping(*arguments):
        with display(*arguments) as shown:
            remember = shown.step

            def step(figures):
                remember(figures)
                if figures.step == steps - 2:
                    os.kill(os.getpid(), signal.SIGTERM)

            shown.step = step
            yield shown

    with pytest.raises(Interrupted):
        repeat(recipes(NAMES[1]), 1, tmp_path / "cut", stopping)
    path = tmp_path / "cut" / "classification" / f"{NAMES[1]}_seed0"
    before = json.loads((path / "time.json").read_text())
    rows, notes = repeat(recipes(NAMES[1]), 1, tmp_path / "cut", display)
    assert len(notes) == 1
    assert display[-1].begun[0] == steps - 1
    assert rows[0].values == whole[0].values
    assert rows[0].seconds > before["seconds"] > 0


def test_runs_of_another_recipe_are_not_taken_for_these(recipes, tmp_path, display):
    repeat(recipes(NAMES[0]), 1, tmp_path / "out", display)
    changed = recipes(NAMES[0], **{"training.learning_rate": 0.3, "training.log_every": 3})
    with pytest.raises(
        BotvisionError, match=r"seed0: expected .* training\.learning_rate"
    ) as caught:
        repeat(changed, 1, tmp_path / "out", display)
    assert "\n" not in str(caught.value)
    same = recipes(NAMES[0], **{"training.log_every": 3})
    assert repeat(same, 1, tmp_path / "out", display)[1] == []


def test_the_command(cli, recipes, tmp_path):
    recipes()
    settings = [option for each in SMALL for option in ("--set", each)]
    status, out, err = cli(
        "repeat", NAMES[0], "--data", tmp_path / "data", "--seeds", 2, "--output",
        tmp_path / "out", *settings, "--json",
    )  # fmt: skip
    assert status == 0, err
    (row,) = json.loads(out)
    assert row["mean"] == pytest.approx(statistics.mean(row["values"]))
    assert len(row["values"]) == 2


def test_the_three_networks_are_on_equal_terms():
    resnet, botnet, s1 = (
        read_recipe(f"small_cifar_{n}") for n in ("resnet", "botnet", "botnet_s1")
    )
    for other in (botnet, s1):
        assert other.training == resnet.training
        assert other.data == resnet.data
    assert resnet.task == "classification"
    assert resnet.model.classifier == "resnet26"
    assert botnet.model == resnet.model.model_copy(update={"classifier": "botnet26"})
    wide = {**botnet.model.classifier_arguments, "output_stride": 16}
    assert s1.model == botnet.model.model_copy(update={"classifier_arguments": wide})
