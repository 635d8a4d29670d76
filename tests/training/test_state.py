"""The state file: a round trip, and what happens to the old one when the new one fails."""

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from botvision.errors import BotvisionError
from botvision.training.state import (
    Progress,
    TrainState,
    collect_state,
    read_state,
    restore,
    write_state,
)


def train_state(seed=0, *, averaged=True):
    torch.manual_seed(seed)
    model = nn.Linear(3, 3)
    average = ModelEmaV3(model, decay=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(1, 3)).sum().backward()  # another momentum for each seed
    optimizer.step()
    average.update(model, step=1)
    return TrainState(model, model, average if averaged else None, optimizer, None)


def save(path, made, progressed):
    write_state(path, collect_state(made, progressed, 8, {"name": "a"}))


def test_round_trip(tmp_path):
    path = tmp_path / "training.pt"
    made, again = train_state(), train_state(seed=1)
    save(path, made, Progress(step=7, evaluated=4, best=0.25, since_best=2))
    state = read_state(path)
    assert (state["batch_size"], state["recipe"]) == (8, {"name": "a"})
    assert restore(state, again, path) == Progress(7, 4, 0.25, 2)
    assert torch.equal(again.plain.weight, made.plain.weight)
    assert torch.equal(again.average.module.weight, made.average.module.weight)
    momenta = [m.optimizer.state_dict()["state"][0]["momentum_buffer"] for m in (again, made)]
    assert torch.equal(*momenta)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        KeyboardInterrupt(),
        RuntimeError("PytorchStreamWriter failed"),
    ],
)
def test_failure_while_saving_leaves_the_earlier_state(error, tmp_path, monkeypatch):
    path = tmp_path / "training.pt"
    save(path, train_state(), Progress(1))

    def failing(content, temporary):
        temporary.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", failing)
    told = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else BotvisionError
    with pytest.raises(told):
        save(path, train_state(), Progress(2))
    assert restore(read_state(path), train_state(), path).step == 1
    assert list(tmp_path.iterdir()) == [path], "half a file was left behind"


def test_state_without_average_for_a_run_with_one(tmp_path):
    path = tmp_path / "training.pt"
    save(path, train_state(averaged=False), Progress(1))
    with pytest.raises(BotvisionError, match=r"training\.pt: "):
        restore(read_state(path), train_state(), path)
