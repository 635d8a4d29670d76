"""A linear regression as a task: the training loop knows nothing of detection."""

import json
import os
import signal
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset

from botvision.errors import BotvisionError, Interrupted
from botvision.training.loop import train
from botvision.training.run_folder import RunFolder
from botvision.training.settings import TrainingSettings
from botvision.weights.file import Description, InputDescription, read_description


class Points(Dataset):
    """Points near a plane, asked for by (epoch, index) and remembered in that order."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(count, 3, generator=generator)
        noise = 0.5 * torch.randn(count, generator=generator)
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5]) + 0.25 + noise
        self.asked = []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, key):
        self.asked.append(key)
        return self.x[key[1]], self.y[key[1]]

    def optimum(self):
        """Weights, bias and loss of the least squares."""
        ones = torch.ones(len(self), 1)
        design = torch.cat([self.x, ones], dim=1).double()
        solution = torch.linalg.lstsq(design, self.y.double()[:, None]).solution
        return solution.flatten(), ((design @ solution).flatten() - self.y.double()).square().mean()


def _whole(parameter):
    """A parameter, put together where its parts are on several processes."""
    value = parameter.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


class Regression:
    metric_names = ("fit", "negative_bias")
    primary_metric = "fit"
    headlines = ("fit",)
    notes = ("from nowhere",)
    mixes_pairs = False

    def __init__(self, count=32):
        torch.manual_seed(1)
        self.model = self.backbone = torch.nn.Linear(3, 1)
        self.description = Description(
            task="regression",
            model={"kind": "linear"},
            classes=(),
            input=InputDescription(
                size=1,
                mean=(0.0,),
                std=(1.0,),
                interpolation="bilinear",
                crop=None,
                precision="float32",
                memory_format="contiguous_format",
            ),
        )
        self.points = Points(count)
        self.spoil = {}  # losses to put in place of the right ones, by call
        self.before = []  # parameters before each step
        self.random = []  # what a layer such as dropout would draw
        self.fits = None  # metrics to report in place of the right ones

    def flat(self, model=None):
        return torch.cat([_whole(p).flatten() for p in (model or self.model).parameters()])

    def train_data(self):
        return self.points

    def collate(self, items):
        return torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])

    def set_training_mode(self, model):
        model.train()

    def losses(self, model, batch, device):
        self.before.append(self.flat())
        self.random.append(float(torch.rand(())))
        x, y = batch
        loss = (model(x).squeeze(1) - y).square().mean()
        spoilt = self.spoil.get(len(self.before))
        return {"square": loss if spoilt is None else loss * spoilt, "nought": loss * 0}

    def evaluate(self, model, progress):
        progress(1, 1)
        self.evaluated = self.flat(model)
        with torch.no_grad():
            loss = float((model(self.points.x).squeeze(1) - self.points.y).square().mean())
        fit = self.fits.pop(0) if self.fits else -loss
        return {"fit": fit, "negative_bias": -self.flat(model)[-1].item(), "names": {"a": 1.0}}

    def results(self):
        return [{"value": 1}]

    def batch_image(self, batch):
        return Image.new("RGB", (4, 4))

    def draw_data(self, folder):
        (folder / "labels.png").touch()

    def draw_evaluation(self, folder, epoch, *, best):
        (folder / f"val_epoch{epoch:03d}.jpg").touch()


@pytest.fixture
def regress(tmp_path, display):
    """Trains a regression; gives the task and its run folder."""

    def run(task=None, path=tmp_path / "run", *, resume=False, profile=False, **settings):
        task = task or Regression()
        defaults = {
            "batch_size": len(task.points),
            "learning_rate": 0.1,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "warmup_steps": 0,
            "num_workers": 0,
            "log_every": 1,
            "evaluate_every": 1000,
            "channels_last": False,
        }
        exists = (path / "recipe.yaml").exists()  # with several processes one has made it
        folder = RunFolder.open(path) if resume or exists else RunFolder.create(path, {})
        chosen = TrainingSettings(**{**defaults, **settings})
        task.returned = train(task, chosen, folder, display=display, resume=resume, profile=profile)
        return task, folder

    return run


class Network(Regression):
    """A regression with everything that a step can depend on: dropout, statistics of the batch."""

    def __init__(self, count=32, width=8):
        super().__init__(count)
        torch.manual_seed(1)
        self.model = self.backbone = torch.nn.Sequential(
            torch.nn.Linear(3, width),
            torch.nn.BatchNorm1d(width),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(width, 1),
        )

    def evaluate(self, model, progress):
        was_training = model.training
        model.eval()
        with torch.no_grad():
            loss = float((model(self.points.x).squeeze(1) - self.points.y).square().mean())
        model.train(was_training)
        progress(1, 1)
        return {"fit": -loss, "negative_bias": 0.0}


@pytest.fixture
def regression():
    return Regression


@pytest.fixture
def network():
    return Network


def assert_same_bits(one, other, where=""):
    """Nested containers of tensors and numbers agree in every bit."""
    if isinstance(one, tuple):  # FSDP gives lists back
        one, other = list(one), list(other)
    assert type(one) is type(other) or isinstance(other, tuple), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_bits(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same_bits(*pair, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def assert_same_run(run, expected):
    """Two run folders hold the same figures, weights and state, in every bit."""
    assert run.metrics.read_text() == expected.metrics.read_text()
    states = [torch.load(folder.state, weights_only=True) for folder in (run, expected)]
    for state in states:
        # Names, folders and workers differ; the recipes are compared elsewhere.
        del state["recipe"]
    assert_same_bits(*states)
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_bits(load_file(run.path / name), load_file(expected.path / name), name)
        descriptions = [read_description(folder.path / name) for folder in (run, expected)]
        assert descriptions[0].metrics == descriptions[1].metrics
        assert descriptions[0].made_by["step"] == descriptions[1].made_by["step"]
    for name in ("predictions.json", "results.csv"):
        assert (run.path / name).read_bytes() == (expected.path / name).read_bytes()


@pytest.fixture
def same_bits():
    return assert_same_bits


@pytest.fixture
def same_run():
    return assert_same_run


@pytest.fixture(autouse=True)
def charts_left_out(undrawn):
    """What runs draw is looked at in the run that all tests share."""


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over another number of threads differ in their last bits, and forks have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def asked_to_stop():
    """A task's maker, so that one process is sent SIGTERM as it begins its eleventh part."""

    def stopping(make, rank):
        def made():
            task = make()
            losses, calls = task.losses, []

            def counted(*arguments):
                calls.append(None)
                if len(calls) == 11 and os.environ["RANK"] == str(rank):
                    os.kill(os.getpid(), signal.SIGTERM)
                return losses(*arguments)

            task.losses = counted
            return task

        return made

    return stopping


@pytest.fixture
def shared(forked, regress):
    """Trains a task in copies of this process that share the run; gives the forks, at their end.

    Their exit codes are the command's.
    """

    def run(make, path, count=2, *, resume=False, codes=(0, 0), **settings):
        if not resume:
            RunFolder.create(path, {})

        def work():
            task = make()
            try:
                regress(task, path, resume=resume, **settings)
            except BotvisionError as error:
                print(error, file=sys.stderr)
                sys.exit(2)
            except Interrupted as stopped:
                print(stopped, file=sys.stderr)
                sys.exit(128 + stopped.signal)
            finally:
                rank = os.environ.get("RANK", "0")
                weights = [] if settings.get("sharded") else task.flat().tolist()
                seen = {"asked": task.points.asked, "weights": weights}
                (path / f"rank{rank}.json").write_text(json.dumps(seen))

        forks = forked(work, count)
        found = forks.wait()
        assert found == list(codes)[:count], [forks.text(rank) for rank in range(count)]
        return forks

    return run
