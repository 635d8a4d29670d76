"""Activations that are computed again in the backward pass: less memory, the same training."""

import copy
import pickle

import pytest
import timm
import torch
from safetensors.torch import load_file

from botvision.recipes.running import train_recipe
from botvision.training.preparation import keep_statistics_of_the_forward_pass
from botvision.training.run_folder import RunFolder


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
