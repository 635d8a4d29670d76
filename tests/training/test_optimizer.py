"""Learning rate schedules against values computed by hand, and groups of parameters."""

import math

import pytest
import torch
from timm.layers.bottleneck_attn import BottleneckAttn
from torch import nn

import botvision
from botvision.attention import MultiHeadSelfAttention2d
from botvision.errors import BotvisionError
from botvision.models.foreign import convert_attention
from botvision.models.non_local import NonLocal2d
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
    ("step", "fraction"), [(0, 0.1), (1, 0.1 + 0.9 / 4), (2, 0.55), (3, 0.775), (4, 1), (5, 1)]
)
@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_warm_up_is_a_fraction_of_the_schedule(step, fraction, schedule):
    cold = settings(schedule=schedule)
    warm = settings(schedule=schedule, warmup_steps=4, warmup_factor=0.1)
    expected = fraction * learning_rate_at(step, 100, cold)
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


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.backbone = nn.ModuleDict(
            {"body": nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), "fpn": nn.Linear(2, 2)}
        )
        self.head = nn.Linear(2, 1)

    def forward(self, x):
        return self.head(self.backbone["fpn"](self.backbone["body"](x)))


def decaying(**changes):
    return TrainingSettings(**{"learning_rate": 0.2, "weight_decay": 0.25, **changes})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_groups(optimizer):
    model = Detector()
    built = build_optimizer(model, decaying(optimizer=optimizer, backbone_learning_rate=0.05))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        (group["lr_scale"], group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for group in built.param_groups
    }
    assert found == {
        (0.25, 0.25): {"backbone.body.0.weight"},
        (0.25, 0.0): {"backbone.body.0.bias", "backbone.body.1.weight", "backbone.body.1.bias"},
        (1.0, 0.25): {"backbone.fpn.weight", "head.weight"},
        (1.0, 0.0): {"backbone.fpn.bias", "head.bias"},
    }


def test_without_one_all_parts_learn_alike():
    groups = build_optimizer(Detector(), decaying()).param_groups
    assert [group["lr_scale"] for group in groups] == [1.0, 1.0]


def test_model_without_backbone():
    with pytest.raises(BotvisionError, match=r"training\.backbone_learning_rate: .*got none"):
        build_optimizer(nn.Linear(2, 2), decaying(backbone_learning_rate=0.05))


class Recording:
    """Wraps a task's model and remembers its weights before each step."""

    def __init__(self, task):
        self.steps = []
        losses = task.losses
        task.losses = lambda *arguments: self.steps.append(self.weights(task)) or losses(*arguments)

    @staticmethod
    def weights(task):
        return {name: value.clone() for name, value in task.model.state_dict().items()}


def test_every_step_obeys_both_rates(regress, regression):
    task = regression()
    task.model = Detector()
    recorded = Recording(task)
    task, run = regress(task, epochs=4, backbone_learning_rate=0.025, schedule="step")
    states = [*recorded.steps, recorded.weights(task)]
    model = Detector()
    for number, rate in enumerate(
        record["learning_rate"] for record in run.history() if "losses" in record
    ):
        model.load_state_dict(states[number])
        loss = (model(task.points.x).squeeze(1) - task.points.y).square().mean()
        loss.backward()
        for name, parameter in model.named_parameters():
            own = rate * (0.25 if name.startswith("backbone.body.") else 1)
            expected = parameter.detach() - own * parameter.grad
            assert torch.allclose(states[number + 1][name], expected, atol=1e-6), name
        model.zero_grad()


def rates_by_name(model, **changes):
    optimizer = build_optimizer(model, decaying(**changes))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_attention_has_rates_of_its_own():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 8, 3),
            "attention": MultiHeadSelfAttention2d(8, num_heads=2, position_size=(4, 4)),
            "non_local": NonLocal2d(8),
        }
    )
    rates = rates_by_name(model, attention_lr_scale=0.5, position_lr_scale=4)
    assert rates == {
        "conv.weight": (1, 0.25),
        "conv.bias": (1, 0),
        "attention.qkv.weight": (0.5, 0.25),
        "attention.position.height": (4, 0),
        "attention.position.width": (4, 0),
        "non_local.theta.weight": (0.5, 0.25),
        "non_local.phi.weight": (0.5, 0.25),
        "non_local.g.weight": (0.5, 0.25),
        "non_local.output.weight": (1, 0.25),
        "non_local.norm.weight": (1, 0),
        "non_local.norm.bias": (1, 0),
    }


def test_rates_of_attention_and_backbone_multiply():
    network = convert_attention(nn.Sequential(BottleneckAttn(8, feat_size=(4, 4), num_heads=2)))
    detector = nn.ModuleDict({"backbone": nn.ModuleDict({"body": network}), "fc": nn.Linear(2, 2)})
    scales = {"attention_lr_scale": 0.5, "position_lr_scale": 8, "backbone_learning_rate": 0.05}
    rates = {name: scale for name, (scale, _) in rates_by_name(detector, **scales).items()}
    attention = "backbone.body.0.attention"
    assert rates == {
        f"{attention}.qkv.weight": 0.125,
        f"{attention}.position.height": 2,
        f"{attention}.position.width": 2,
        "fc.weight": 1,
        "fc.bias": 1,
    }
