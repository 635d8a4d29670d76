"""A learning rate of the backbone's own."""

import pytest
import torch
from torch import nn

from botvision.errors import BotvisionError
from botvision.training.optimizer import build_optimizer
from botvision.training.settings import TrainingSettings


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


def settings(**changes):
    return TrainingSettings(**{"learning_rate": 0.2, "weight_decay": 0.25, **changes})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_groups(optimizer):
    model = Detector()
    built = build_optimizer(model, settings(optimizer=optimizer, backbone_learning_rate=0.05))
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
    groups = build_optimizer(Detector(), settings()).param_groups
    assert [group["lr_scale"] for group in groups] == [1.0, 1.0]


def test_model_without_backbone():
    with pytest.raises(BotvisionError, match=r"training\.backbone_learning_rate: .*got none"):
        build_optimizer(nn.Linear(2, 2), settings(backbone_learning_rate=0.05))


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
