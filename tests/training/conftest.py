"""A linear regression as a task: the training loop knows nothing of detection."""

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from botvision.training.loop import train
from botvision.training.run_folder import RunFolder
from botvision.training.settings import TrainingSettings


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


class Regression:
    primary_metric = "fit"

    def __init__(self, count=32):
        torch.manual_seed(1)
        self.model = torch.nn.Linear(3, 1)
        self.description = {"model": "linear"}
        self.points = Points(count)
        self.spoil = {}  # losses to put in place of the right ones, by call
        self.before = []  # parameters before each step
        self.random = []  # what a layer such as dropout would draw
        self.fits = None  # metrics to report in place of the right ones

    def flat(self, model=None):
        return torch.cat([p.detach().flatten() for p in (model or self.model).parameters()])

    def train_data(self):
        return self.points

    def collate(self, items):
        return torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])

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
        return {"fit": self.fits.pop(0) if self.fits else -loss, "names": {"a": 1.0}}

    def results(self):
        return [{"value": 1}]

    def batch_picture(self, batch):
        return Image.new("RGB", (4, 4))

    def validation_picture(self):
        return Image.new("RGB", (4, 4))


@pytest.fixture
def regress(tmp_path, display):
    """Trains a regression; gives the task and its run folder."""

    def run(task=None, path=tmp_path / "run", *, resume=False, **settings):
        task = task or Regression()
        defaults = {
            "batch_size": len(task.points),
            "learning_rate": 0.1,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "warmup_steps": 0,
            "workers": 0,
            "log_every": 1,
            "evaluate_every": 1000,
            "channels_last": False,
        }
        folder = RunFolder.open(path) if resume else RunFolder.create(path, {})
        chosen = TrainingSettings(**{**defaults, **settings})
        task.returned = train(task, chosen, folder, display=display, resume=resume)
        return task, folder

    return run


@pytest.fixture
def regression():
    return Regression
