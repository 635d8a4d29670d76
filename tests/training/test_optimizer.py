"""Schedules against values computed by hand, and which parameters decay."""

import math

import pytest
import torch
from torch import nn

import botvision
from botvision.attention import MultiHeadSelfAttention2d
from botvision.training.optimizer import build_optimizer, learning_rate_at
from botvision.training.settings import TrainingSettings


def settings(**changes):
    return TrainingSettings(**{"learning_rate": 0.2, "warmup_steps": 0, **changes})


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.2),
        (25, 0.1 * (1 + math.sqrt(0.5))),
        (50, 0.1),
        (75, 0.1 * (1 - math.sqrt(0.5))),
        (99, 0.1 * (1 - math.cos(math.pi / 100))),
    ],
)
def test_cosine(step, expected):
    assert learning_rate_at(step, 100, settings()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.2), (66, 0.2), (67, 0.02), (88, 0.02), (89, 0.002), (99, 0.002)]
)
def test_step(step, expected):
    rate = learning_rate_at(step, 100, settings(schedule="step"))
    assert rate == pytest.approx(expected, rel=1e-12)


def test_other_milestones():
    chosen = settings(schedule="step", milestones=(0.5,), step_factor=0.5)
    rates = [learning_rate_at(step, 4, chosen) for step in range(4)]
    assert rates == pytest.approx([0.2, 0.2, 0.1, 0.1])


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.1), (1, 0.1 + 0.9 / 4), (2, 0.55), (3, 0.775), (4, 1), (5, 1)]
)
@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_warm_up_is_a_share_of_the_schedule(step, share, schedule):
    cold = settings(schedule=schedule)
    warm = settings(schedule=schedule, warmup_steps=4, warmup_factor=0.1)
    expected = share * learning_rate_at(step, 100, cold)
    assert learning_rate_at(step, 100, warm) == pytest.approx(expected, rel=1e-12)


def test_warm_up_longer_than_the_run():
    rates = [learning_rate_at(step, 3, settings(warmup_steps=1000)) for step in range(3)]
    assert all(0 < rate < 0.2 for rate in rates)


def names_by_decay(model, **changes):
    optimizer = build_optimizer(model, settings(weight_decay=0.25, **changes))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {
        group["weight_decay"]: {names[id(p)] for p in group["params"]}
        for group in optimizer.param_groups
    }
    assert set(groups) == {0.25, 0.0}
    return groups


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_norms_biases_and_position_tables_do_not_decay(optimizer, position):
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 8, 3),
            "norm": nn.BatchNorm2d(8),
            "attention": MultiHeadSelfAttention2d(
                8, num_heads=2, position=position, position_size=(4, 4)
            ),
            "fc": nn.Linear(8, 2),
        }
    )
    groups = names_by_decay(model, optimizer=optimizer)
    assert groups[0.25] == {"conv.weight", "attention.qkv.weight", "fc.weight"}
    assert groups[0.0] == {
        *("conv.bias", "norm.weight", "norm.bias", "fc.bias"),
        *("attention.position.height", "attention.position.width"),
    }


def test_every_parameter_of_a_botnet_is_trained_once():
    model = botvision.create_model("botnet_tiny", num_classes=2)
    groups = names_by_decay(model)
    assert not groups[0.25] & groups[0.0]
    assert groups[0.25] | groups[0.0] == {name for name, _ in model.named_parameters()}
    assert {name for name in groups[0.0] if "position" in name} == {
        name for name, _ in model.named_parameters() if "position" in name
    }


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = names_by_decay(model)
    assert groups == {0.25: {"1.weight"}, 0.0: {"1.bias"}}


@pytest.mark.parametrize(
    ("name", "expected"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)]
)
def test_optimizer_of_the_recipe(name, expected):
    optimizer = build_optimizer(nn.Linear(2, 2), settings(optimizer=name, momentum=0.75))
    assert type(optimizer) is expected
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]
    if name == "sgd":
        assert [group["momentum"] for group in optimizer.param_groups] == [0.75, 0.75]
