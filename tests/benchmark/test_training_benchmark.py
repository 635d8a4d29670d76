"""The training loop measured from within: what counts as waiting, and what a bare step is."""

import json
from types import SimpleNamespace

import pytest
import torch

from botvision.benchmark import training_benchmark
from botvision.benchmark.training_benchmark import WARM_UP, Clock, benchmark_training
from botvision.datasets.coco.dataset import CocoInstances
from botvision.tasks.detection.training import DetectorTraining
from botvision.training import speed
from botvision.training.speed import StepFigures

pytestmark = pytest.mark.usefixtures("undrawn")


def quiet(text):
    pass


def figures(step, seconds, waited, images):
    """A step's figures when so much time and waiting have passed in all."""
    return StepFigures(step, {}, 0.1, step * images / seconds, waited / seconds, None)


def test_waiting_after_the_first_steps():
    clock = Clock(4, quiet)
    # The first two steps wait 9 of 10 seconds, the other two 1 of 5.
    for step, seconds, waited in [(1, 6, 5), (2, 10, 9), (3, 12, 9.5), (4, 15, 10)]:
        clock.step(figures(step, seconds, waited, images=3))
    waiting, images = clock.since(2)
    assert waiting == pytest.approx(1 / 5)
    assert images == pytest.approx(2 * 3 / 5)


@pytest.fixture
def kept(monkeypatch):
    """Keeps the turns of a benchmark, to be looked at."""
    found = []

    class Kept(training_benchmark.Turns):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.prepared, self.parts = self._bare, []
            found.append(self)

        def step(self, each):
            self.parts.append(list(self.batches.given))
            super().step(each)

    monkeypatch.setattr(training_benchmark, "Turns", Kept)
    return found


@pytest.mark.parametrize(
    "split", [[], ["training.batch_size=4", "training.micro_batch_size=2"]], ids=["whole", "parts"]
)
def test_bare_steps_are_the_loops(split, make_recipe, kept):
    # Same data, draws and rates: with nothing but a step in the loop, the weights agree to the bit.
    recipe = make_recipe("training.clip_grad_norm=null", "training.ema_decay=null", *split)
    report = benchmark_training(recipe, steps=3, progress=quiet)
    (turns,) = kept
    loop = dict(turns.batches.task.model.state_dict())
    bare = turns.prepared.plain.state_dict()
    assert all(torch.equal(loop[name], value) for name, value in bare.items())
    parts = 2 if split else 1
    assert [len(step) for step in turns.parts] == [parts] * (WARM_UP + 3)
    assert (report.steps, report.images) == (3, 4 if split else 2)
    assert len(turns.loop) == len(turns.bare) == WARM_UP + 3


def test_reading_is_waiting(make_recipe, monkeypatch):
    # A clock that reading an image moves by three seconds, and a step by one.
    now = [0.0]
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    read, losses = CocoInstances._read, DetectorTraining.losses

    def reading(self, index):
        now[0] += 3
        return read(self, index)

    def stepping(self, *arguments):
        now[0] += 1
        return losses(self, *arguments)

    monkeypatch.setattr(CocoInstances, "_read", reading)
    monkeypatch.setattr(DetectorTraining, "losses", stepping)
    share, images = training_benchmark._waiting(make_recipe(), WARM_UP + 2, quiet)
    assert share == pytest.approx(6 / 7)  # of a batch of two
    assert images == pytest.approx(2 / 7)


def test_the_command(make_recipe, cli, handwriting, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [part for change in tiny for part in ("--set", change)]
    before = set(tmp_path.iterdir())
    command = ["benchmark", "training", "--data", handwriting, "--split", "val", "--steps", 2]
    status, out, err = cli(*command, *options, "--json")
    assert status == 0, err
    report = json.loads(out)
    assert report["recipe"]["data"]["train_split"] == "val"
    assert report["recipe"]["data"]["folder"] == str(handwriting)
    assert 0 <= report["waiting"] <= 1
    assert report["loop"]["rounds"] == report["bare"]["rounds"] == 2
    for cost in (report["cost"], report["processor_cost"]):
        assert cost["low"] <= cost["median"] <= cost["high"]
    written = tmp_path / "runs" / "benchmark" / "training" / "benchmark.json"
    assert json.loads(written.read_text()) == report
    assert set(tmp_path.iterdir()) - before == {tmp_path / "runs"}


def test_the_table():
    from rich.console import Console

    from botvision.benchmark.machine import describe_machine
    from botvision.benchmark.measuring import Timing
    from botvision.benchmark.training_benchmark import Cost, TrainingReport
    from botvision.cli.benchmark_tables import training_table

    report = TrainingReport(
        machine=describe_machine("cpu"),
        recipe={"name": "demo", "training": {"num_workers": 2}},
        steps=5,
        images=3,
        waiting=0.042,
        images_per_second=1.5,
        read=Timing(0.05, 0.1, 16),
        loop=Timing(1.02, 0.1, 5),
        bare=Timing(1.0, 0.1, 5),
        cost=Cost.of([1.1, 2.2, 4.0], [1.0, 2.0, 4.0]),
        processor_cost=Cost(0.021, -0.011, 0.032),
    )
    console = Console(width=100)
    with console.capture() as capture:
        console.print(training_table(report))
    text = " ".join(capture.get().split())
    for part in (
        "waiting for data 4.2%",
        "loop 10.0% (5.0% to 10.0%)",
        "processor time 2.1% (-1.1% to 3.2%)",
        "1020 ms",
        "batch 3, 2 workers",
    ):
        assert part in text
