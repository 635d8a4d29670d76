"""Items depend on what they are asked for by alone; labels are those of the training data."""

import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from botvision.datasets.folders.dataset import ClassImages
from botvision.errors import BotvisionError
from botvision.tasks.classification.settings import ClassImageSettings
from botvision.tasks.classification.transforms import evaluation_transform, training_transform

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
# Draws from each of the three generators: crops and RandAugment from Python's and numpy's,
# tta, colors and erasing from torch's and Python's.
ALL = {"augmentation": "rand-m9-n2-mstd0.5", "color_jitter": 0.3, "erasing": 0.5}


def dataset(folder, seed=0, image_size=32, **settings):
    data = ClassImages(str(folder), "train", seed=seed)
    data.transform = training_transform(
        ClassImageSettings(**settings), image_size, mean=MEAN, std=STD
    )
    return data


def test_workers_order_and_draws_elsewhere_change_nothing(shapes):
    data = dataset(shapes, **ALL)
    keys = [(epoch, index) for epoch in (0, 3) for index in range(0, len(data), 10)]
    wanted = {key: data[key][0] for key in keys}
    for num_workers in (0, 2):
        random.seed(num_workers)
        np.random.seed(num_workers)  # noqa: NPY002
        torch.manual_seed(num_workers)
        loader = DataLoader(data, batch_size=None, sampler=keys[::-1], num_workers=num_workers)
        found = {tuple(int(number) for number in key): image for image, _, key in loader}
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in keys)


def test_epoch_index_and_seed_draw_anew(shapes):
    data, other = dataset(shapes, **ALL), dataset(shapes, seed=1, **ALL)
    images = [data[(epoch, 5)][0] for epoch in range(4)] + [other[(0, 5)][0]]
    assert not any(
        torch.equal(one, two) for place, one in enumerate(images) for two in images[:place]
    )


def test_the_generators_go_on_as_if_nothing_had_been_drawn(shapes):
    data = dataset(shapes, **ALL)

    def draws():
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    expected = [draws(), draws()]
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    assert draws() == expected[0]
    data[(0, 0)]
    assert draws() == expected[1]


def test_an_archive_gives_the_items_of_its_folder(shapes, archives):
    ours, archived = dataset(shapes, **ALL), dataset(archives, **ALL)
    assert ours.classes == archived.classes == ("circle", "cross", "square")
    for index in range(0, len(ours), 7):
        one, two = ours[(2, index)], archived[(2, index)]
        assert torch.equal(one[0], two[0])
        assert one[1:] == two[1:]
        assert ours.name(index) == archived.name(index)


def test_labels_are_matched_by_name(shapes, tmp_path):
    # Alone, the second split would number its classes otherwise.
    shutil.copytree(shapes / "val", tmp_path / "val", ignore=shutil.ignore_patterns("circle"))
    data = ClassImages(str(tmp_path), "val", classes=("circle", "cross", "square"))
    assert data.labels.tolist() == [1] * 12 + [2] * 12
    assert data.name(12).startswith("square/")
    with pytest.raises(BotvisionError, match="class 'square': expected the 2 classes"):
        ClassImages(str(tmp_path), "val", classes=("circle", "cross"))


def test_evaluation_looks_at_the_middle(tmp_path):
    # 80 x 40, columns numbered by their value: at a share of 0.5 the middle 20 are seen.
    columns = np.broadcast_to(np.arange(80, dtype=np.uint8)[None, :, None], (40, 80, 3))
    image = Image.fromarray(np.ascontiguousarray(columns))
    seen = evaluation_transform(40, 0.5, mean=MEAN, std=STD)(image)
    assert seen.shape == (3, 40, 40)
    values = seen * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert torch.allclose(values[:, 0, 0] * 255, torch.tensor(30.0), atol=1)
    assert torch.allclose(values[:, 0, -1] * 255, torch.tensor(49.0), atol=1)


def test_padding_moves_the_whole_image(tmp_path):
    path = tmp_path / "train" / "gray" / "a.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (32, 32), (255, 255, 255)).save(path)
    data = dataset(tmp_path, crop_padding=4)
    black = -torch.tensor(MEAN)[:, None, None] / torch.tensor(STD)[:, None, None]
    corners = set()
    for epoch in range(300):
        image = data[(epoch, 0)][0]
        white = ~torch.isclose(image, black).all(dim=0)
        rows, columns = torch.nonzero(white, as_tuple=True)
        assert white.sum() == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        corners.add((32 - len(rows.unique()), 32 - len(columns.unique())))
    assert {row for row, _ in corners} == {column for _, column in corners} == set(range(5))


def test_colors_change_beside_an_automatic_augmentation(shapes):
    # timm by itself would leave the jitter out; this augmentation never happens.
    settings = {"crop_padding": 1, "flip": 0.0, "augmentation": "rand-m9-n1-p0"}
    still, jittered = dataset(shapes, **settings), dataset(shapes, **settings, color_jitter=0.9)
    pairs = [(still[(0, index)][0], jittered[(0, index)][0]) for index in range(8)]
    assert not any(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"augmentation": "ranaugment"}, "data.augmentation.*'ranaugment'"),
        ({"augmentation": "randm9"}, "data.augmentation.*'randm9'"),
        ({"crop_scale": (1.0, 0.5)}, "data.crop_scale"),
    ],
)
def test_settings_that_cannot_be(settings, expected):
    with pytest.raises(BotvisionError, match=expected) as caught:
        training_transform(ClassImageSettings(**settings), 32, mean=MEAN, std=STD)
    assert "\n" not in str(caught.value)


def test_bad_images_are_left_out_and_counted(shapes, tmp_path):
    shutil.copytree(shapes / "val", tmp_path / "train")
    bad = [tmp_path / "train" / "cross" / "3.png", tmp_path / "train" / "square" / "0.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:100])
    bad[1].write_text("no image")
    (tmp_path / "train" / "cross" / "notes.txt").write_text("not counted")
    data = ClassImages(str(tmp_path), "train", skip_bad=True)
    assert len(data) == 34
    assert len(data.skipped) == 2
    for path, fault in zip(bad, data.skipped, strict=True):
        assert str(path) in fault
    assert data.labels.bincount().tolist() == [12, 11, 11]
    assert f"34 images of 3 classes; 2 skipped, the first: {bad[0]}" in data.summary()
    assert not {"cross/3.png", "square/0.png"} & {data.name(index) for index in range(34)}
    strict = ClassImages(str(tmp_path), "train")
    assert (len(strict), strict.skipped) == (36, ())
    assert "skipped" not in strict.summary()


def test_a_class_whose_images_are_all_bad(shapes, tmp_path):
    shutil.copytree(shapes / "val", tmp_path / "train")
    for path in (tmp_path / "train" / "cross").iterdir():
        path.write_text("no image")
    with pytest.raises(BotvisionError, match="class 'cross': none of its images can be read"):
        ClassImages(str(tmp_path), "train", skip_bad=True)
    # Those to evaluate on may lack a class.
    classes = ("circle", "cross", "square")
    assert len(ClassImages(str(tmp_path), "train", classes=classes, skip_bad=True)) == 24
