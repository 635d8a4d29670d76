"""Weights, gradients and optimizer split over two processes: the same run as without."""

import json

import pytest
import torch
from safetensors.torch import load_file

import botvision
from botvision.errors import BotvisionError
from botvision.recipes.running import train_recipe
from botvision.training.run_folder import RunFolder

SETTINGS = {"batch_size": 8, "micro_batch_size": 2, "epochs": 3, "evaluate_every": 1}
FULL = {"ema_decay": 0.9, "clip_grad_norm": 0.5, "momentum": 0.9}
ADAMW = {"optimizer": "adamw", "ema_decay": 0.9, "learning_rate": 0.01}


def assert_close_runs(run, expected):
    pairs = list(zip(run.history(), expected.history(), strict=True))
    for found, wanted in pairs:
        kind = "losses" if "losses" in wanted else "metrics"
        assert found[kind] == pytest.approx(wanted[kind], rel=1e-4)
    for name in ("best", "last"):
        found, wanted = (load_file(getattr(each, name)) for each in (run, expected))
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert torch.allclose(found[key], wanted[key], rtol=1e-4, atol=1e-6), key


@pytest.mark.parametrize("settings", [{}, FULL, ADAMW], ids=["plain", "sgd", "adamw"])
def test_sharded_run_is_the_run_that_is_not(settings, shared, network, tmp_path):
    runs = [RunFolder(tmp_path / name) for name in ("whole", "sharded")]
    for run, sharded in zip(runs, (False, True), strict=True):
        shared(network, run.path, **SETTINGS, **settings, sharded=sharded)
    assert_close_runs(runs[1], runs[0])
    states = [torch.load(run.state, weights_only=True) for run in runs]
    for found, wanted in ((each["model"], states[0]["model"]) for each in states[1:]):
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[k], wanted[k], rtol=1e-4, atol=1e-6) for k in wanted)
    groups = [each["optimizer"]["param_groups"] for each in states]
    keys = ("weight_decay", "lr_scale", "lr")
    assert [[g[k] for k in keys] for g in groups[1]] == [[g[k] for k in keys] for g in groups[0]]


@pytest.mark.parametrize("settings", [FULL, ADAMW], ids=["sgd", "adamw"])
def test_sharded_run_resumes_bit_for_bit(
    settings, shared, network, asked_to_stop, same_run, tmp_path
):
    settings = {**SETTINGS, **settings, "sharded": True}
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    shared(network, whole.path, **settings)

    interrupted = asked_to_stop(network, rank=0)
    shared(interrupted, run.path, codes=(143, 143), **settings)
    assert torch.load(run.state, weights_only=True)["progressed"]["step"] == 6
    shared(network, run.path, resume=True, **settings)
    same_run(run, whole)


def test_one_process_has_nothing_to_shard_over(regress):
    with pytest.raises(BotvisionError, match=r"training\.sharded: expected several processes"):
        regress(sharded=True)


@pytest.mark.slow
@pytest.mark.parametrize("split", [6, 5], ids=["equal", "unequal"])
def test_sharded_detector(split, make_recipe, handwriting, forked, display, tmp_path):
    """As it is trained; with 5 images to evaluate one process has more of them than the other."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(handwriting / "images")
    (data / "annotations").mkdir()
    for name in ("train", "val"):
        file = f"instances_{name}.json"
        content = json.loads((handwriting / "annotations" / file).read_text())
        if name == "val":
            content["images"] = content["images"][:split]
            kept = {image["id"] for image in content["images"]}
            content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
        (data / "annotations" / file).write_text(json.dumps(content))
    runs = [RunFolder(tmp_path / name) for name in ("whole", "sharded")]
    for run, sharded in zip(runs, ("false", "true"), strict=True):
        recipe = make_recipe(
            *("training.batch_size=4", "training.precision=float32"),
            *(f"training.sharded={sharded}", "training.channels_last=false"),
            data=data,
        )
        forks = forked(lambda r=recipe, p=run.path: train_recipe(r, p, display=display), 2)
        assert forks.wait() == [0, 0], forks.text()
    for found, wanted in zip(runs[1].history(), runs[0].history(), strict=True):
        if "losses" in wanted:
            assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-3)
    for weights in (runs[1].best, runs[1].last):
        botvision.load(weights)
