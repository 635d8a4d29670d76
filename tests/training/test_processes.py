"""Several processes are one run, and it is the run of one process with the same batch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from botvision.recipes.running import train_recipe
from botvision.training.run_folder import RunFolder
from botvision.weights.file import read_description

TRAIN = Path("annotations") / "instances_train.json"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def seen(path, rank=0):
    return json.loads((path / f"rank{rank}.json").read_text())


def parameters(path):
    return {
        name: tensor
        for name, tensor in load_file(path).items()
        if not name.endswith(STATISTICS)  # those of the batches of the first process
    }


def assert_same_losses(one, other):
    pairs = list(zip(one.history(), other.history(), strict=True))
    assert [a["step"] for a, _ in pairs] == [b["step"] for _, b in pairs]
    losses = [(a["losses"], b["losses"]) for a, b in pairs if "losses" in a]
    assert losses
    for a, b in losses:
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9, "clip_grad_norm": 0.5, "ema_decay": 0.9},
        {"optimizer": "adamw", "learning_rate": 0.01},
    ],
    ids=["sgd", "clipped and averaged", "adamw"],
)
def test_two_processes_have_the_losses_of_one(settings, shared, network, tmp_path):
    # 30 points in batches of 16: the last one is filled up.
    settings = {"batch_size": 16, "micro_batch_size": 4, "epochs": 3, **settings}
    runs = [RunFolder(tmp_path / name) for name in ("one", "two")]
    for count, run in enumerate(runs, start=1):
        shared(lambda: network(30), run.path, count, **settings)
    assert_same_losses(*runs)
    for name in ("best", "last"):
        found, expected = (parameters(getattr(run, name)) for run in runs)
        # BatchNorm takes the mean out: the first bias has no gradient, and AdamW makes steps of
        # its rounding errors.
        for key in expected.keys() - {"0.bias"}:
            assert torch.allclose(found[key], expected[key], rtol=1e-3, atol=1e-5), key
    # The same points in the same order, four at a time, first one process and then the other.
    (alone, first, second) = (
        [tuple(key) for key in seen(path, rank)["asked"]]
        for path, rank in ((runs[0].path, 0), (runs[1].path, 0), (runs[1].path, 1))
    )
    dealt = [
        (first, second)[part % 2][part // 2 * 4 : part // 2 * 4 + 4]
        for part in range(len(alone) // 4)
    ]
    assert [key for part in dealt for key in part] == alone
    assert seen(runs[1].path, 0)["weights"] == seen(runs[1].path, 1)["weights"]


def test_two_processes_resume_bit_for_bit(shared, network, asked_to_stop, same_run, tmp_path):
    settings = {"batch_size": 8, "micro_batch_size": 2, "epochs": 3, "evaluate_every": 1}
    settings |= {"ema_decay": 0.9, "momentum": 0.9, "clip_grad_norm": 1.0}
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    shared(network, whole.path, **settings)

    # In step 6 of 12; and only one of the two is asked.
    interrupted = asked_to_stop(network, rank=1)
    forks = shared(interrupted, run.path, codes=(143, 143), **settings)
    for rank in range(2):
        (line,) = forks.text(rank).splitlines()
        assert line.endswith(f"saved; resume the run in {run.path}")
    assert torch.load(run.state, weights_only=True)["progressed"]["step"] == 6
    shared(network, run.path, resume=True, **settings)
    same_run(run, whole)


def test_row_36_nan_on_one_of_two_processes_stops_both(shared, network, tmp_path):
    run = RunFolder(tmp_path / "run")

    def spoilt():
        task = network()
        if os.environ["RANK"] == "1":
            task.spoil = {5: float("nan")}
        return task

    began = time.monotonic()
    settings = {"batch_size": 8, "save_every": 4, "epochs": 3, "momentum": 0.9}
    forks = shared(spoilt, run.path, codes=(2, 2), **settings)
    assert time.monotonic() - began < 60
    for rank in range(2):
        (line,) = forks.text(rank).splitlines()
        assert "step 5: expected finite losses, got square nan" in line
    # Neither made the step: the weights are those of the state of the step before.
    state = torch.load(run.state, weights_only=True)
    assert state["progressed"]["step"] == 4
    names = [name for name, _ in network().model.named_parameters()]
    before = torch.cat([state["model"][name].flatten() for name in names]).tolist()
    assert seen(run.path, 0)["weights"] == seen(run.path, 1)["weights"] == before


def test_end_of_one_process_is_one_line_of_the_other(shared, network, tmp_path):
    def killed():
        task = network()
        losses = task.losses

        def once(*arguments):
            if len(task.before) == 3 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            return losses(*arguments)

        task.losses = once
        return task

    forks = shared(killed, tmp_path / "run", codes=(2, -9), batch_size=8, epochs=3)
    (line,) = [each for each in forks.text(0).splitlines() if "step" in each]
    assert line == "step 4: another process of the run ended; see what it says"
    assert "Traceback" not in forks.text(0)


def test_evaluation_sees_the_statistics_of_the_first_process(shared, network, tmp_path):
    """Each has its own batches' statistics; what is measured and what is saved have to agree."""
    fits = tmp_path / "fits"
    fits.mkdir()

    def watched():
        task = network()
        evaluate = task.evaluate

        def noted(model, progress):
            rank = os.environ["RANK"]
            (fits / rank).write_text(json.dumps(model[1].running_mean.tolist()))
            return evaluate(model, progress)

        task.evaluate = noted
        return task

    shared(watched, tmp_path / "run", batch_size=8, epochs=1)
    found = [json.loads((fits / rank).read_text()) for rank in "01"]
    assert found[0] == found[1]
    last = load_file(tmp_path / "run" / "last.safetensors")
    assert last["1.running_mean"].tolist() == found[0]


@pytest.mark.slow
def test_detector_with_frozen_batch_norm_is_the_same_in_two_processes(
    make_recipe, trained_run, forked, display, tmp_path
):
    overrides = (
        *("training.batch_size=4", "training.micro_batch_size=2", "training.precision=float32"),
        *("model.batch_norm=frozen", f"model.backbone_weights={json.dumps(str(trained_run.best))}"),
    )
    runs = [RunFolder(tmp_path / name) for name in ("one", "two")]
    for count, run in enumerate(runs, start=1):
        recipe = make_recipe(*overrides)
        forks = forked(lambda r=recipe, p=run.path: train_recipe(r, p, display=display), count)
        assert forks.wait() == [0] * count, forks.text()
    assert_same_losses(*runs)
    found, expected = (load_file(run.last) for run in runs)
    frozen = [n for n in expected if "backbone.body" in n and n.endswith(STATISTICS)]
    assert frozen
    for name in [*frozen, *parameters(runs[0].last)]:
        assert torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("how", ["forked", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_two_processes_share_a_command(how, make_recipe, forked_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_recipe = make_recipe()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")))
    arguments = ["train", str(recipe), "--json", "--set", "training.epochs=1"]
    arguments += ["--set", "training.batch_size=4", "--set", "training.log_every=1"]
    if how == "forked":
        forks = forked_command(*arguments, count=2)
        assert forks.wait() == [0, 0], forks.text()
        lines = [line for line in forks.text().splitlines() if line.startswith("{")]
        assert "{" not in forks.text(1)
    else:
        botvision = Path(sys.executable).with_name("botvision")
        launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
        done = subprocess.run(
            [*launcher, "--no-python", str(botvision), *arguments],
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
    (path,) = (tmp_path / "runs" / "instance_segmentation").iterdir()
    run = RunFolder(path)
    images = len(json.loads((tiny_recipe.data.folder / TRAIN).read_text())["images"])
    # Each step takes two images on each of two processes, and is written once.
    steps = [record["step"] for record in run.history() if "losses" in record]
    assert steps == list(range(1, -(-images // 4) + 1))
    # What is printed, once, is what was written and what the weights say of themselves.
    (line,) = lines
    printed = json.loads(line)["metrics"]
    evaluation = run.last_metrics()
    assert evaluation.items() <= printed.items()
    assert read_description(run.last).metrics == printed
    # The images were split between them and counted once.
    results = json.loads((path / "predictions.json").read_text())
    keys = [(r["image_id"], r["category_id"], r["score"], *r["bbox"]) for r in results]
    assert len(keys) == len(set(keys)) > 0
