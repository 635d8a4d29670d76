"""Colored images of seven classes and a narrow BoTNet that was trained on them for a moment."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image

CLASSES = ("black", "blue", "cyan", "green", "red", "white", "yellow")
COLORS = ("#101010", "#2030d0", "#20c0c0", "#20b030", "#d02020", "#e0e0e0", "#d0c020")
NARROW = {"stem_type": "deep", "stem_width": 4, "channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}


def image(color, rng):
    """A noisy image, darker to the right, so that its mirror image is another one."""
    side = rng.integers(36, 50, 2)
    plain = np.asarray(Image.new("RGB", (int(side[0]), int(side[1])), color), dtype=float)
    shade = np.linspace(1, 0.3, plain.shape[1])[None, :, None]
    noise = rng.normal(0, 40, plain.shape)
    return Image.fromarray((plain * shade + noise).clip(0, 255).astype(np.uint8))


class Quiet:
    """A display that shows nothing."""

    def note(self, text):
        pass

    def step(self, figures):
        pass

    @contextlib.contextmanager
    def evaluating(self):
        yield lambda done, total: None

    def evaluated(self, epoch, metrics, *, best):
        pass


@contextlib.contextmanager
def quiet_display(done, total, headlines):
    yield Quiet()


@pytest.fixture(scope="session")
def colors(tmp_path_factory):
    """Class folders: 8 training and 5 validation images of each class; read only."""
    folder = tmp_path_factory.mktemp("classes") / "colors"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for name, color in zip(CLASSES, COLORS, strict=True):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image(color, rng).save(folder / split / name / f"{name}{number}.png")
    return folder


@pytest.fixture(scope="session")
def train_classifier(colors, tmp_path_factory):
    """Makes a run folder of a classifier of the colors, from overrides of its recipe."""
    from botvision.recipes.reading import read_recipe
    from botvision.recipes.running import train_recipe
    from botvision.training.run_folder import RunFolder

    def train(*overrides):
        recipe = read_recipe(
            "small_cifar_botnet",
            [
                f"model.classifier_arguments={json.dumps(NARROW)}",
                "training.epochs=2",
                "training.batch_size=14",
                "training.learning_rate=0.5",
                "training.warmup_steps=2",
                "training.num_workers=0",
                f"data.folder={json.dumps(str(colors))}",
                *overrides,
            ],
        )
        path = tmp_path_factory.mktemp("runs") / "colors"
        train_recipe(recipe, path, display=quiet_display)
        return RunFolder(path)

    return train


@pytest.fixture(scope="session")
def classifier_run(train_classifier):
    """A finished run with CIFAR's stem; read only."""
    return train_classifier()
