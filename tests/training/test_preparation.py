"""What stands around a model in training."""

from functools import partialmethod

import pytest
import torch
from safetensors.torch import load_file

from botvision.recipes.running import train_recipe
from botvision.training.preparation import determinism
from botvision.training.run_folder import RunFolder
from botvision.training.settings import TrainingSettings


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_determinism_lasts_as_long_as_the_run(before, wanted, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.use_deterministic_algorithms(before)
    try:
        with determinism(TrainingSettings(deterministic=wanted)):
            assert torch.are_deterministic_algorithms_enabled() is (before or wanted)
        assert torch.are_deterministic_algorithms_enabled() is before
    finally:
        torch.use_deterministic_algorithms(False)


def test_deterministic_run_does_not_leave_it_on(regress, regression, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    task = regression()
    losses, found = task.losses, []

    def noted(*arguments):
        found.append(torch.are_deterministic_algorithms_enabled())
        return losses(*arguments)

    task.losses = noted
    regress(task, epochs=1, deterministic=True)
    assert found == [True]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_format_of_the_convolutions(channels_last, regress, regression):
    task = regression()
    task.model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Conv2d(3, 4, 3))
    losses = {"square": task.losses}

    def of_the_first(model, batch, device):
        found = losses["square"](model[0], batch, device)
        return {**found, "nought": 0 * model[1].weight.sum() + 0 * model[1].bias.sum()}

    task.losses = of_the_first
    task.evaluate = lambda model, progress: {"fit": 0.0, "negative_bias": 0.0}
    regress(task, epochs=1, channels_last=channels_last)
    weight = task.model[1].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert weight.grad is None or torch.isfinite(weight.grad).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_backbone_trains_as_the_plain_one(make_recipe, display, tmp_path, monkeypatch):
    # Graphs and their gradients as in earnest, without the minutes that C++ takes.
    compiled_by = partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", compiled_by)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    runs = [RunFolder(tmp_path / name) for name in ("plain", "compiled")]
    for run, compiled in zip(runs, ("false", "true"), strict=True):
        recipe = make_recipe(
            *("training.precision=float32", "training.max_steps=2"),
            f"training.compile={compiled}",
        )
        train_recipe(recipe, run.path, display=display)
        assert (torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0) is (run is runs[1])
    for found, wanted in zip(runs[1].history(), runs[0].history(), strict=True):
        if "losses" in wanted:
            assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-3)
    found, wanted = load_file(runs[1].last), load_file(runs[0].last)
    assert found.keys() == wanted.keys()
