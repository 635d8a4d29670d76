"""Frozen BatchNorm: which layers, and that training leaves them as they are."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import botvision
from botvision.errors import BotvisionError
from botvision.models import create_model
from botvision.recipes.running import build_task, train_recipe
from botvision.tasks.detection.detectors.batch_norm import (
    freeze_batch_norm,
    hold_batch_norm,
    tune_batch_norm,
)
from botvision.training.run_folder import RunFolder

SMALL = {"channels": (8, 16, 32, 64)}


def norms(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.fixture
def backbone():
    return create_model("botnet_tiny", img_size=64, features_only=True)


def test_whole_backbone_freezes_all(backbone):
    frozen = freeze_batch_norm(backbone, list(backbone.state_dict()))
    assert set(frozen) == set(norms(backbone))
    assert len(frozen) > 5


def test_blocks_that_are_new_in_part_stay_in_training(backbone):
    new = next(n for n in backbone.state_dict() if "layer4" in n and "conv" not in n and "0." in n)
    block = ".".join(new.split(".")[:2])
    taken = [name for name in backbone.state_dict() if name != new]
    frozen = freeze_batch_norm(backbone, taken)
    assert set(norms(backbone)) - set(frozen) == {
        name for name in norms(backbone) if name.startswith(block + ".")
    }
    for name, module in norms(backbone).items():
        expected = name not in frozen
        assert [p.requires_grad for p in module.parameters()] == [expected] * 2


def test_without_a_backbone_there_is_nothing_to_freeze(backbone, make_recipe):
    with pytest.raises(
        BotvisionError, match=r"model\.batch_norm: expected model\.backbone_weights"
    ):
        freeze_batch_norm(backbone, [])
    with pytest.raises(
        BotvisionError, match=r"model\.batch_norm: expected model\.backbone_weights"
    ):
        build_task(make_recipe("model.batch_norm=frozen"))


def test_held_layers_stay_out_of_training_mode(backbone):
    frozen = freeze_batch_norm(backbone, list(backbone.state_dict()))[:2]
    backbone.train()
    hold_batch_norm(backbone, frozen)
    assert {name for name, module in norms(backbone).items() if not module.training} == set(frozen)


@pytest.mark.parametrize(("momentum", "eps"), [(None, None), (0.003, None), (0.003, 1e-4)])
def test_momentum_and_epsilon(momentum, eps, backbone):
    before = {name: (m.momentum, m.eps) for name, m in norms(backbone).items()}
    tune_batch_norm(backbone, momentum, eps)
    for name, module in norms(backbone).items():
        assert module.momentum == (before[name][0] if momentum is None else momentum)
        assert module.eps == (before[name][1] if eps is None else eps)


def test_training_leaves_frozen_layers_as_the_backbone_had_them(
    make_recipe, trained_run, val_image, display, tmp_path
):
    run = RunFolder(tmp_path / "run")
    backbone = f"model.backbone_weights={json.dumps(str(trained_run.best))}"
    recipe = make_recipe("model.batch_norm=frozen", backbone, "training.weight_decay=0.5")
    train_recipe(recipe, run.path, display=display)
    before, after = load_file(trained_run.best), load_file(run.last)
    model = build_task(recipe).model
    body = {f"backbone.body.{name}" for name in norms(model.get_submodule("backbone.body"))}
    assert f"BatchNorm frozen in {len(body)} layers of the backbone" in display[0].notes
    for layer in body:
        for name in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(after[f"{layer}.{name}"], before[f"{layer}.{name}"]), layer
    # The rest is trained, the pyramid's BatchNorm with it.
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert "backbone.body.conv1.0.weight" in changed or any("conv1" in n for n in changed)
    assert any("fpn" in name and "running_mean" in name for name in changed)
    assert any("mhsa" in name or "attn" in name or "qkv" in name for name in changed)
    botvision.load(run.last)(val_image)
