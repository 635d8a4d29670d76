"""What a run sends to trackers."""

import importlib.util

import pytest

from botvision.errors import BotvisionError
from botvision.training.log import check_trackers
from botvision.training.run_folder import RunFolder
from botvision.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("name", "command"),
    [("tensorboard", "pip install botvision[track]"), ("wandb", "pip install wandb")],
)
def test_missing_tracker_is_one_line_with_the_command(name, command, monkeypatch, regress):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked: None if asked == name else find(asked)
    )
    with pytest.raises(BotvisionError) as raised:
        check_trackers(TrainingSettings(trackers=(name,)))
    assert str(raised.value) == f"training.trackers: {name} is not installed; {command}"
    with pytest.raises(BotvisionError, match="is not installed"):
        regress(trackers=(name,))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_tensorboard_holds_the_run(ends, regress, regression, tmp_path):
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    task = regression()
    if ends == "badly":  # what was sent is there all the same
        task.spoil = {6: float("nan")}
        with pytest.raises(BotvisionError):
            regress(task, epochs=6, evaluate_every=2, trackers=("tensorboard",))
    else:
        regress(task, epochs=6, evaluate_every=2, trackers=("tensorboard",))
    events = list((tmp_path / "run").rglob("events.out.tfevents.*"))
    assert events
    found = accumulator.EventAccumulator(str(events[0].parent))
    found.Reload()
    steps = 6 if ends == "well" else 5
    history = RunFolder(tmp_path / "run").history()
    for name, kind, key in (
        ("train/square", "losses", "square"),
        ("val/fit", "metrics", "fit"),
    ):
        sent = [(each.step, each.value) for each in found.Scalars(name)]
        written = [(r["step"], r[kind][key]) for r in history if kind in r]
        assert [step for step, _ in sent] == [step for step, _ in written]
        assert [v for _, v in sent] == pytest.approx([v for _, v in written], rel=1e-5)
    rates = [each.value for each in found.Scalars("train/learning_rate")]
    assert len(rates) == steps
    assert {"speed/images_per_second", "speed/waiting"} <= set(found.Tags()["scalars"])
