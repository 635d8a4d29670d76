"""``botvision data preview``: the images that the training begins an epoch with."""

import numpy as np
import pytest
from PIL import Image

from botvision.recipes.running import build_task
from botvision.training.sampling import BatchPlan, StepBatches


@pytest.fixture
def preview(cli, tiny, handwriting, tmp_path):
    def run(*arguments, output=tmp_path / "out.png"):
        sets = [part for override in tiny for part in ("--set", override)]
        return cli(
            "data", "preview", "demo", "--data", handwriting, *sets, "--output", output, *arguments
        )

    return run


@pytest.mark.parametrize(("epoch", "count"), [(2, 4), (1, 3)])
def test_the_images_are_those_of_the_training(preview, make_recipe, tmp_path, epoch, count):
    changes = ("data.copy_paste=0.5", "training.seed=3")
    options = [part for change in changes for part in ("--set", change)]
    status, out, error = preview("--epoch", epoch, "--count", count, *options)
    assert (status, error) == (0, "")
    assert out.startswith(f"{count} images of epoch {epoch} are in ")
    task = build_task(make_recipe(*changes))
    data = task.train_data()
    # Training's own batches, of another size.
    plan = BatchPlan(micro_batch_size=2, processes=1, accumulation=1, lr_factor=1)
    batches = StepBatches(len(data), plan, 5, seed=3, first_step=4 * epoch)
    keys = [key for _, batch in zip(range(2), batches, strict=False) for key in batch][:count]
    assert {key[0] for key in keys} == {epoch}
    expected = task.batch_image(task.collate([data[key] for key in keys]))
    with Image.open(tmp_path / "out.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_no_more_images_than_there_are(preview, tmp_path):
    status, out, _ = preview(output=tmp_path / "out.jpg")
    assert status == 0
    assert out.startswith("8 images of epoch 0")
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.format == "JPEG"


def test_classification(cli, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(3):
                noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
                noise.save(tmp_path / "set" / split / name / f"{number}.png")
    status, out, error = cli(
        *("data", "preview", "small_cifar_resnet", "--data", tmp_path / "set"),
        *("--output", tmp_path / "out.png", "--count", 5, "--set", "data.mixup=0.2"),
    )
    assert (status, error) == (0, "")
    assert out.startswith("4 images of epoch 0")  # they are mixed in pairs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--output", "a.txt"), "a.txt: expected a file name in .jpg"),
        (("--output", "none/a.jpg"), "none/a.jpg: no such folder"),
        (("--set", "data.copy_paste=1.5"), "data.copy_paste: "),
        (("--set", "data.color_jitter=-1"), "data.color_jitter: "),
    ],
)
def test_errors(preview, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, out, error = preview(*arguments)
    assert (status, out) == (2, "")
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_option_for_the_data_wins_over_an_override(preview, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert preview("--set", "data.folder=none")[0] == 0
