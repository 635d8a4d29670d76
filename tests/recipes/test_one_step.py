"""Each recipe builds its data and its model and takes an optimizer step on two images."""

import json
import re

import pytest
import timm
import torch

from botvision.recipes.composition import recipe_names
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import build_task
from botvision.recipes.schema import ClassificationRecipe
from botvision.tasks.classification.build import build_classifier
from botvision.tasks.detection.build import build_detector
from botvision.training.optimization import build_optimizer

# Images and regions are few and small; networks, heads and optimizers are the recipe's.
SMALL = {
    "classification": ("model.image_size=64",),
    "detection": ("model.image_size=64",),
    "instance_segmentation": (
        "model.image_size=64",
        "model.rpn_pre_nms_top_n_train=50",
        "model.rpn_post_nms_top_n_train=20",
        "model.box_batch_size_per_image=8",
    ),
}


@pytest.fixture(scope="module")
def class_folder(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("classes")
    for split in ("train", "val"):
        for shade, name in enumerate(("dark", "light")):
            path = folder / split / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.effect_noise((80, 70), 40 + 40 * shade).convert("RGB").save(path)
    return folder


@pytest.fixture(scope="module")
def backbone_weights(tmp_path_factory):
    """A ResNet-50's weights; random ones."""
    path = tmp_path_factory.mktemp("trunk") / "resnet50.pth"
    torch.save(timm.create_model("resnet50", num_classes=0).state_dict(), path)
    return path


def network(name):
    """What a recipe's network is made of."""
    content = read_recipe(name).model.model_dump()
    keys = ("detector", "backbone", "backbone_arguments", "classifier", "classifier_arguments")
    return json.dumps([content.get(key) for key in (*keys, "stem", "batch_norm")])


def form(name):
    """A recipe's network but for its depth, widths and rates."""
    return re.sub(r"[\d.]+", "", network(name))


def of_their_own(key):
    """The first recipe of each network or form."""
    return list({key(name): name for name in reversed(recipe_names())}.values())[::-1]


def cases():
    """All recipes; those with another one's network, or its form in another size, are slow."""
    quick = of_their_own(form)
    return [
        pytest.param(name, marks=() if name in quick else pytest.mark.slow)
        for name in recipe_names()
    ]


@pytest.mark.parametrize("name", sorted({*of_their_own(network)} - {*of_their_own(form)}))
def test_a_network_of_another_size_is_built(name):
    model = read_recipe(name).model
    build = build_classifier if read_recipe(name).task == "classification" else build_detector
    with torch.device("meta"):
        assert sum(p.numel() for p in build(model, 7).parameters()) > 1e5


@pytest.mark.parametrize("name", cases())
def test_one_step_on_two_images(name, handwriting, class_folder, backbone_weights):
    recipe = read_recipe(name)
    folder = class_folder if isinstance(recipe, ClassificationRecipe) else handwriting
    changes = [f"data.folder={json.dumps(str(folder))}", "training.batch_size=2"]
    if name == "finetune":
        changes.append(f"model.backbone_weights={json.dumps(str(backbone_weights))}")
    recipe = read_recipe(name, [*SMALL[recipe.task], *changes])
    task = build_task(recipe)
    model = task.model
    data = task.train_data()
    batch = task.collate([data[(0, index)] for index in range(2)])
    optimizer = build_optimizer(model, recipe.training)
    first = next(task.backbone.parameters())
    before = first.detach().clone()

    task.set_training_mode(model)
    losses = task.losses(model, batch, torch.device("cpu"))
    assert losses
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    if recipe.task != "classification":
        assert ("loss_mask" in losses) == recipe.model.masks
    sum(losses.values()).backward()
    optimizer.step()

    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not torch.equal(first, before)
