"""Determinism, memory format, compilation and gradient checkpointing."""

import copy
import pickle
from functools import partialmethod

import pytest
import timm
import torch
from safetensors.torch import load_file

from botvision.recipes.running import train_recipe
from botvision.training.preparation import determinism, keep_statistics_of_the_forward_pass
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


def backbone():
    torch.manual_seed(0)
    return timm.create_model("botnet_tiny", pretrained=False, features_only=True, img_size=64)


def step(network, images):
    """Gradients of a step."""
    network.zero_grad()
    sum(level.square().mean() for level in network(images)).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.fixture
def pair():
    """A network, and its copy that computes activations again."""
    plain = backbone().train()
    again = copy.deepcopy(plain)
    again.set_grad_checkpointing(True)
    keep_statistics_of_the_forward_pass(again)
    return plain, again


def test_gradients_and_statistics_are_the_same(pair):
    plain, again = pair
    torch.manual_seed(1)
    calls = []
    again.layer2.register_forward_pre_hook(lambda *_: calls.append(None))
    for number in range(1, 3):
        images = torch.randn(2, 3, 64, 64)
        expected, found = step(plain, images), step(again, images)
        assert len(calls) == 2 * number, "nothing was computed again"
        assert found.keys() == expected.keys()
        for name in expected:
            assert torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-7), name
        for (name, wanted), one in zip(
            plain.named_buffers(), dict(again.named_buffers()).values(), strict=True
        ):
            assert torch.equal(one, wanted), name


def test_without_the_hooks_a_batch_would_count_twice(pair):
    """The test above has something to find."""
    plain, _ = pair
    again = copy.deepcopy(plain)
    again.set_grad_checkpointing(True)
    images = torch.randn(2, 3, 64, 64)
    step(plain, images)
    step(again, images)
    counted = [b for n, b in again.named_buffers() if n.endswith("num_batches_tracked")]
    assert {int(each) for each in counted} == {1, 2}


def test_hooks_leave_the_network_as_it_was(pair):
    plain, again = pair
    step(again, torch.randn(2, 3, 64, 64))
    assert again.state_dict().keys() == plain.state_dict().keys()
    for copied in (copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
        # In evaluation statistics are used, and no gradient is needed.
        with torch.no_grad():
            images = torch.randn(1, 3, 64, 64)
            levels = zip(copied.eval()(images), copy.deepcopy(again).eval()(images), strict=True)
            assert all(torch.equal(*each) for each in levels)


def test_run_is_the_same(make_recipe, trained_run, display, tmp_path):
    run = RunFolder(tmp_path / "run")
    plain = RunFolder(tmp_path / "plain")
    for folder, again in ((run, "true"), (plain, "false")):
        recipe = make_recipe(
            *("training.epochs=1", "training.precision=float32"),
            f"training.gradient_checkpointing={again}",
        )
        train_recipe(recipe, folder.path, display=display)
    for found, wanted in zip(run.history(), plain.history(), strict=True):
        if "losses" in wanted:
            assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-4)
    found, wanted = load_file(run.last), load_file(plain.last)
    for name in wanted:
        assert torch.allclose(found[name], wanted[name], rtol=1e-3, atol=1e-5), name
