"""The training loop on a linear regression, whose every step can be computed by hand."""

import json

import pytest
import torch
from safetensors.torch import load_file

from botvision.errors import BotvisionError
from botvision.training.loop import train
from botvision.training.run_folder import RunFolder
from botvision.training.settings import TrainingSettings
from botvision.weights.file import read_description


def test_reaches_the_least_squares(regress):
    task, run = regress(epochs=120, momentum=0.5)
    optimum, loss = task.points.optimum()
    assert torch.allclose(task.flat().double(), optimum, atol=1e-4)
    assert task.returned["fit"] == pytest.approx(-float(loss), rel=1e-5)
    losses = [record["losses"]["square"] for record in run.history() if "losses" in record]
    assert losses[0] > 2 * losses[-1]
    assert losses[-1] == pytest.approx(float(loss), rel=1e-4)


def test_every_step_is_plain_gradient_descent(regress, regression):
    task, run = regress(epochs=5)
    model = torch.nn.Linear(3, 1)
    model.load_state_dict(regression().model.state_dict())
    rates = [record["learning_rate"] for record in run.history() if "losses" in record]
    assert len(rates) == 5
    for rate, before in zip(rates, task.before, strict=True):
        assert torch.allclose(task.flat(model), before, atol=1e-6)
        loss = (model(task.points.x).squeeze(1) - task.points.y).square().mean()
        for parameter, gradient in zip(
            model.parameters(),
            torch.autograd.grad(loss, list(model.parameters())),
            strict=True,
        ):
            parameter.data -= rate * gradient
    assert torch.allclose(task.flat(model), task.flat(), atol=1e-6)


def test_gradients_are_clipped(regress):
    task, run = regress(epochs=4, clip_grad_norm=0.01)
    rates = [record["learning_rate"] for record in run.history() if "losses" in record]
    moves = [
        float((after - before).norm())
        for before, after in zip(task.before, [*task.before[1:], task.flat()], strict=True)
    ]
    # The gradients are of order one, so that each is cut to 0.01.
    assert moves == pytest.approx([0.01 * rate for rate in rates], rel=1e-3)


def test_average_is_evaluated_and_saved_and_the_raw_weights_resumed(regress):
    task, run = regress(epochs=6, ema_decay=0.9)
    average = task.before[0]
    raw = [*task.before[1:], task.flat()]
    for step, weights in enumerate(raw):
        # The warm-up of timm's ModelEmaV3: it forgets the start at once and then ever less.
        decay = min(0.9, 1 - (1 + (step - 1)) ** -0.75) if step > 1 else 0.0
        average = decay * average + (1 - decay) * weights
    assert torch.allclose(task.evaluated, average, atol=1e-6)
    assert not torch.allclose(task.evaluated, raw[-1], atol=1e-3)
    saved = load_file(run.last)
    assert torch.equal(torch.cat([saved["weight"].flatten(), saved["bias"]]), task.evaluated)
    state = torch.load(run.state, weights_only=True)
    assert torch.equal(state["model"]["weight"], task.model.weight)
    assert torch.equal(state["average"]["weight"], saved["weight"])


def test_without_average_the_weights_themselves_are_evaluated(regress):
    task, run = regress(epochs=2)
    assert torch.equal(task.evaluated, task.flat())
    assert torch.load(run.state, weights_only=True)["average"] is None
    assert torch.equal(load_file(run.last)["weight"], task.model.weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_loss_that_is_not_finite_stops_before_the_step(value, regress, regression, tmp_path):
    task = regression()
    task.spoil = {4: value}
    with pytest.raises(BotvisionError) as raised:
        regress(task, batch_size=16, epochs=4, save_every=3, momentum=0.9)
    message = str(raised.value)
    assert "step 4" in message  # as metrics.jsonl counts
    assert "square" in message
    assert "\n" not in message
    assert len(task.before) == 4, "the run went on"
    assert torch.equal(task.flat(), task.before[-1]), "the weights changed"
    run = RunFolder(tmp_path / "run")
    state = torch.load(run.state, weights_only=True)
    assert state["progressed"]["step"] == 3
    assert torch.equal(state["model"]["weight"].flatten(), task.before[3][:3])
    assert [record["step"] for record in run.history()] == [1, 2, 3]
    # And with the cause removed the run goes on.
    again, _ = regress(resume=True, batch_size=16, epochs=4, momentum=0.9)
    assert torch.equal(again.before[0], task.before[3])


def test_gradient_that_is_not_finite_stops_before_the_step(regress, regression):
    task = regression()
    whole = task.losses

    def losses(model, batch, device):
        found = whole(model, batch, device)
        if len(task.before) == 4:  # a loss of 0 whose slope is not a number
            found["root"] = (0 * model.weight).abs().sqrt().sum()
        return found

    task.losses = losses
    with pytest.raises(BotvisionError, match="step 4: expected a finite gradient"):
        regress(task, batch_size=16, epochs=4, clip_grad_norm=1.0)
    assert torch.equal(task.flat(), task.before[-1]), "the weights changed"


def test_data_is_read_in_the_order_of_the_sampler(regress):
    task, _ = regress(batch_size=16, epochs=2)
    asked = task.points.asked
    assert [epoch for epoch, _ in asked] == [0] * 32 + [1] * 32
    for epoch in (0, 1):
        assert sorted(index for e, index in asked if e == epoch) == list(range(32))


def test_random_draws_of_a_step_depend_on_seed_and_step_alone(regress, tmp_path):
    first, _ = regress(path=tmp_path / "a", epochs=3)
    torch.rand(5)  # what happened before is of no account
    second, _ = regress(path=tmp_path / "b", epochs=3)
    other, _ = regress(path=tmp_path / "c", epochs=3, seed=1)
    assert first.random == second.random
    assert len({*first.random, *other.random}) == 6


def test_random_draws_are_the_same_after_resuming(regress, regression, tmp_path):
    whole, _ = regress(path=tmp_path / "whole", epochs=4)
    task = regression()
    task.spoil = {3: float("nan")}
    with pytest.raises(BotvisionError):
        regress(task, epochs=4)
    again, _ = regress(resume=True, epochs=4)
    assert again.random == whole.random[2:]


def test_run_folder_of_any_task(regress):
    _, run = regress(batch_size=16, epochs=3, evaluate_every=2)
    names = {path.name for path in run.path.rglob("*") if path.is_file()}
    assert names == {
        *("recipe.yaml", "environment.json", "metrics.jsonl", "results.csv", "results.png"),
        *("train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg", "labels.png"),
        *("val_epoch002.jpg", "val_epoch003.jpg", "predictions.json"),
        *("best.safetensors", "last.safetensors", "training.pt", "lock"),
    }
    assert json.loads((run.path / "predictions.json").read_text()) == [{"value": 1}]
    evaluations = [record for record in run.history() if "metrics" in record]
    # Every second epoch and the last.
    assert [(r["epoch"], r["step"]) for r in evaluations] == [(2, 4), (3, 6)]
    assert [set(r["metrics"]) for r in evaluations] == [{"fit", "negative_bias"}] * 2
    description = read_description(run.last)
    assert description.model == {"kind": "linear"}
    assert description.made_by["step"] == 6
    assert description.metrics["fit"] == evaluations[-1]["metrics"]["fit"]


def test_best_is_the_evaluation_with_the_highest_metric(regress, regression, display):
    task = regression()
    task.fits = [-0.5, 0.25, 0.25, 0.125]
    _, run = regress(task, epochs=4, evaluate_every=1)
    assert [best for _, _, best in display[0].evaluations] == [True, True, False, False]
    assert read_description(run.best).made_by["step"] == 2
    assert read_description(run.last).made_by["step"] == 4
    assert torch.equal(load_file(run.best)["weight"].flatten(), task.before[2][:3])


def test_best_so_far_survives_resuming(regress, regression):
    task = regression()
    task.fits = [0.5]
    task.spoil = {2: float("nan")}
    with pytest.raises(BotvisionError):
        regress(task, epochs=2, evaluate_every=1)
    again = regression()
    again.fits = [0.25]
    _, run = regress(again, resume=True, epochs=2, evaluate_every=1)
    assert read_description(run.best).made_by["step"] == 1
    assert read_description(run.last).made_by["step"] == 2


@pytest.mark.parametrize(
    ("log_every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (9, [1, 5])]
)
def test_steps_that_are_logged(log_every, expected, regress):
    _, run = regress(epochs=5, log_every=log_every)
    assert [r["step"] for r in run.history() if "losses" in r] == expected


def test_display_is_told_of_every_step(regress, display):
    regress(batch_size=16, epochs=2)
    assert display[0].begun == (0, 4)
    assert [done for done, _ in display[0].steps] == [1, 2, 3, 4]
    assert set(display[0].steps[0][1]) == {"square", "nought"}
    ((epoch, metrics, best),) = display[0].evaluations
    assert (epoch, best) == (2, True)
    assert metrics["names"] == {"a": 1.0}


def test_patience_ends_the_run(regress, regression, display):
    task = regression()
    task.fits = [0.5, 0.25, 0.75, 0.5, 0.5, 0.9]
    _, run = regress(task, epochs=6, evaluate_every=1, patience=2)
    assert read_description(run.best).made_by["step"] == 3
    assert read_description(run.last).made_by["step"] == 5
    assert [r["step"] for r in run.history() if "losses" in r] == [1, 2, 3, 4, 5]
    assert display[0].notes[-1] == "no better evaluation in 2: stopped after step 5 of 6"
    # It stays ended, and gives its last figures.
    again, _ = regress(resume=True, epochs=6, evaluate_every=1, patience=2)
    assert again.returned["fit"] == 0.5
    assert again.before == []


def test_patience_counts_over_an_interruption(regress, regression):
    settings = {"epochs": 6, "evaluate_every": 1, "patience": 2}
    task = regression()
    task.fits, task.spoil = [0.5, 0.25], {3: float("nan")}
    with pytest.raises(BotvisionError):
        regress(task, **settings)
    again = regression()
    again.fits = [0.25, 0.9]
    _, run = regress(again, resume=True, **settings)
    assert read_description(run.last).made_by["step"] == 3
    assert read_description(run.best).made_by["step"] == 1


def test_best_by_another_metric(regress, regression):
    task = regression()
    evaluate, values = task.evaluate, iter([0.1, 0.3, 0.2])
    task.evaluate = lambda *each: {**evaluate(*each), "negative_bias": next(values)}
    _, run = regress(task, epochs=3, evaluate_every=1, best_metric="negative_bias")
    assert read_description(run.best).made_by["step"] == 2


def test_unknown_metric_is_one_line(regress):
    with pytest.raises(BotvisionError) as raised:
        regress(best_metric="accuracy")
    assert str(raised.value) == (
        "training.best_metric: expected one of fit, negative_bias, got 'accuracy'"
    )


def test_dry_run_ends_with_an_evaluation(regress):
    task, run = regress(batch_size=8, epochs=5, max_steps=3)
    assert [(r["step"], "metrics" in r) for r in run.history()] == [
        *((1, False), (2, False), (3, False)),
        (3, True),
    ]
    assert torch.load(run.state, weights_only=True)["progressed"]["step"] == 3
    # The schedule ends with it: the last rate of a cosine over three steps.
    assert run.history()[2]["learning_rate"] == pytest.approx(0.1 * 0.25)
    assert task.returned["fit"] < 0


def test_accumulated_parts_are_one_batch(regress, tmp_path):
    whole, _ = regress(path=tmp_path / "whole", epochs=4)
    parts, run = regress(path=tmp_path / "parts", epochs=4, micro_batch_size=8)
    assert len(parts.before) == 4 * len(whole.before)
    assert torch.allclose(parts.flat(), whole.flat(), atol=1e-6)
    assert len([r for r in run.history() if "losses" in r]) == 4


def test_learning_rate_of_another_batch_is_scaled_and_said(regress, display):
    _, run = regress(epochs=1, base_batch_size=64)
    assert run.history()[0]["learning_rate"] == pytest.approx(0.05)
    assert (
        display[0]
        .notes[0]
        .endswith("learning rate 0.05, scaled in proportion from 0.1 for a batch of 64")
    )


def test_run_without_a_display_is_silent(regression, tmp_path, capfd):
    folder = RunFolder.create(tmp_path / "run", {})
    settings = TrainingSettings(epochs=2, batch_size=16, num_workers=0, save_every=1, patience=1)
    assert "fit" in train(regression(), settings, folder)
    assert capfd.readouterr() == ("", "")
