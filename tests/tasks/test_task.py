"""A task from outside the package goes through everything that the program does with tasks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import nn

import botvision
from botvision.attention import MultiHeadSelfAttention2d
from botvision.errors import BotvisionError
from botvision.files import write_json
from botvision.images.decode import read_image
from botvision.tasks import task as tasks
from botvision.tasks.predictor import Predictor
from botvision.tasks.publish import save_pretrained
from botvision.weights.file import (
    Description,
    InputDescription,
    ModelClass,
    load_tensors,
    read_tensors,
)


class ToySettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = 4
    backbone_weights: str | None = None


class ToyData(BaseModel):
    model_config = ConfigDict(extra="forbid")
    folder: str | None = None
    val_split: str = "val"


class ToyNetwork(nn.Module):
    """The mean brightness of an image, by way of attention."""

    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 8, stride=8)
        self.attention = MultiHeadSelfAttention2d(width, num_heads=2, position_size=(4, 4))
        self.head = nn.Linear(width, 1)

    def forward(self, images):
        return self.head(self.attention(self.stem(images)).mean((2, 3)))[:, 0]


def gray(image):
    pixels = np.asarray(image.convert("L").resize((32, 32)), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None]


class ToyItems(torch.utils.data.Dataset):
    def __init__(self, folder):
        self.paths = sorted((folder).glob("*.png"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, key):
        image = gray(Image.open(self.paths[key[1]]))
        return image, image.mean()


def stacked(items):
    return tuple(torch.stack(each) for each in zip(*items, strict=True))


class ToyTraining:
    mixes_pairs = False
    metric_names = headlines = ("accuracy",)
    primary_metric = "accuracy"
    notes = ("toys",)

    def __init__(self, recipe):
        torch.manual_seed(recipe.training.seed)
        self.model = self.backbone = ToyNetwork(recipe.model.width)
        self.train, self.val = (ToyItems(folder(recipe.data, name)) for name in ("train", "val"))
        self.description = Description(
            task="toy",
            model=recipe.model.model_dump(exclude={"backbone_weights"}),
            classes=(ModelClass(id=0, name="brightness"),),
            input=InputDescription(
                size=32,
                mean=(0.0,),
                std=(1.0,),
                interpolation="bicubic",
                crop=None,
                precision=recipe.training.precision,
                memory_format="contiguous_format",
            ),
        )
        self.collate = stacked
        self.found = []

    def train_data(self):
        return self.train

    def set_training_mode(self, model):
        model.train()

    def losses(self, model, batch, device):
        images, brightness = (each.to(device) for each in batch)
        return {"square": (model(images) - brightness).square().mean()}

    def evaluate(self, model, progress):
        images, brightness = stacked([self.val[0, index] for index in range(len(self.val))])
        with torch.inference_mode():
            self.found = model.eval()(images).tolist()
        return measured(torch.tensor(self.found), brightness)

    def results(self):
        return self.found

    def batch_image(self, batch):
        return Image.fromarray((batch[0][0, 0].numpy() * 255).astype(np.uint8))

    def draw_data(self, folder):
        (folder / "labels.png").touch()

    def draw_evaluation(self, folder, epoch, *, best):
        (folder / f"val_epoch{epoch:03d}.jpg").touch()

    def example(self, model):
        return ToyPredictor(model, self.description), Image.open(self.val.paths[0]), (20, 20)


def folder(data, split):
    return Path(data.folder) / split


def measured(found, truth):
    return {"accuracy": 1 - (found - truth).abs().mean().item()}


class ToyPredictor(Predictor):
    task = "toy"

    def predict(self, images, *, threshold=None, tta=False):
        with torch.inference_mode():
            return self.model(torch.stack([gray(image) for image in images])).tolist()

    def covered_box(self, image):
        return 0.0, 0.0, float(image.width), float(image.height)


class ToyWriter:
    def __init__(self, output):
        self.output, self.found = output, {}
        self.files = [output / "predictions.json"]

    def draw(self, name, image, result):
        pass

    def record(self, name, size, result):
        return {"file_name": name.as_posix(), "brightness": result}

    def finish(self, records, skipped, read):
        self.found = {each["file_name"]: each["brightness"] for each in records()}
        self.output.mkdir(exist_ok=True)
        content = {"brightness": self.found, "skipped": []}
        write_json(self.output / "predictions.json", content)

    def summary(self):
        return [f"{len(self.found)} toys"]


class ToyTask:
    name = "toy"
    headlines = ("accuracy",)
    lower_is_better = frozenset()
    model_settings, data_settings = ToySettings, ToyData
    data_kind = "a folder of toys"

    def kind(self, model):
        return "toy"

    def title(self, model):
        return f"toy network of width {model['width']}"

    def model_keys(self, model):
        return frozenset(ToySettings.model_fields)

    def build(self, recipe):
        return ToyTraining(recipe)

    def predictor(self, path, description, *, device, image_size=None):
        model = ToyNetwork(description.model["width"])
        load_tensors(model, read_tensors(path), path)
        return ToyPredictor(model, description, device=device)

    def evaluate(self, predictor, data, options, progress=None):
        items = ToyItems(folder(ToyData(folder=str(data)), options.split))
        truth = torch.stack([items[0, index][1] for index in range(len(items))])
        return measured(torch.tensor(predictor([*items.paths])), truth)

    def writer(self, predictor, output, names, save=None):
        return ToyWriter(output)

    def tabulate(self, metrics):
        return tasks.MetricTable(("value",), [("accuracy", (metrics["accuracy"],))], [])

    def card(self, description, path):
        usage = 'botvision.load("{where}")'
        config = {"library_name": "botvision", "task": "toy"}
        return tasks.Card("image-to-text", self.title(description.model), usage, config)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The registered task, with its data and a recipe."""
    monkeypatch.setattr(tasks, "_REGISTERED", {})
    tasks.register(ToyTask())
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((40, 40), rng.integers(0, 256), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / f"{number}.png")
    recipe = {
        "name": "try",
        "task": "toy",
        "data": {"folder": str(tmp_path / "data")},
        "training": {
            "epochs": 6,
            "batch_size": 4,
            "num_workers": 2,
            "optimizer": "adamw",
            "learning_rate": 0.01,
            "warmup_steps": 1,
            "precision": "float32",
        },
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_it_goes_through_everything(toy, tmp_path, cli):
    runs = ("--runs", tmp_path / "runs")
    assert cli("train", toy, *runs, "--set", "training.epochs=2")[0] == 0
    run = botvision.train(toy, runs=tmp_path / "runs", name="long", epochs=8)
    assert run.folder == tmp_path / "runs" / "toy" / "long"
    assert run.metrics["accuracy"] > 0.7

    weights = run.best
    assert cli("train", "--resume", run.folder)[0] == 0
    status, out, _ = cli("val", weights, "--json")
    assert status == 0
    assert json.loads(out)["accuracy"] == pytest.approx(run.metrics["accuracy"])
    assert botvision.evaluate(weights)["accuracy"] == json.loads(out)["accuracy"]
    assert "accuracy" in cli("val", weights)[1]

    status, out, _ = cli(
        "predict", tmp_path / "data" / "val", "--weights", weights, "--output", tmp_path / "out"
    )
    assert (status, "6 toys" in out) == (0, True)
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())["brightness"]
    predictor = botvision.load(weights)
    image = tmp_path / "data" / "val" / "0.png"
    assert written["0.png"] == pytest.approx(predictor(image), abs=1e-6)

    status, _, _ = cli(
        *("attention-map", image, "--at", "5,5", "--weights", weights),
        *("--output", tmp_path / "map.png"),
    )
    assert status == 0
    assert read_image(tmp_path / "map.png").width > 100

    published = save_pretrained(run.folder, tmp_path / "published")
    card = (published / "README.md").read_text()
    assert "toy network of width 4" in card
    assert 'botvision.load("hf-hub:OWNER/published")' in card
    assert botvision.load(published)(image) == predictor(image)

    status, out, _ = cli("runs", tmp_path / "runs", "--json")
    assert {(each["task"], each["main_metric"]) for each in json.loads(out)} == {
        ("toy", "accuracy")
    }


def test_mistakes_in_its_recipe_are_one_line(toy, tmp_path, cli):
    status, _, err = cli("train", toy, "--set", "model.wdth=3")
    assert status == 2
    assert "model.wdth: no such key; did you mean width?" in err
    status, _, err = cli("train", toy, "--set", "data.folder=null")
    assert status == 2
    assert "expected a data folder" in err


def test_runs_of_a_task_that_is_not_there_are_still_listed(toy, tmp_path, cli, monkeypatch):
    assert cli("train", toy, "--runs", tmp_path / "runs", "--max-steps", 2)[0] == 0
    monkeypatch.setattr(tasks, "_REGISTERED", {})
    status, out, _ = cli("runs", tmp_path / "runs", "--json")
    assert status == 0
    assert json.loads(out)[0]["task"] == "toy"
    weights = tmp_path / "runs" / "toy" / "try" / "best.safetensors"
    with pytest.raises(BotvisionError, match="task: expected one of detection, classification, g"):
        botvision.load(weights)


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(tasks, "_REGISTERED", {})
    toy = ToyTask()
    tasks.register(toy)
    tasks.register(toy)
    with pytest.raises(ValueError, match="got 'toy', which is registered"):
        tasks.register(ToyTask())
    taken = ToyTask()
    taken.name = "detection"
    with pytest.raises(ValueError, match="got 'detection', which is registered"):
        tasks.register(taken)
