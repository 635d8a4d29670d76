"""Each recipe's network is built; one of each kind takes an optimizer step on two images."""

import json

import pytest
import timm
import torch

from botvision.recipes.composition import recipe_names
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import build_task
from botvision.tasks.classification.build import build_classifier
from botvision.tasks.detection.build import build_detector
from botvision.training.optimizer import build_optimizer

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
    path = tmp_path_factory.mktemp("backbone") / "resnet50.pth"
    torch.save(timm.create_model("resnet50", num_classes=0).state_dict(), path)
    return path


def network(recipe):
    """What a recipe's network is made of."""
    content = recipe.model.model_dump()
    keys = ("detector", "backbone", "backbone_arguments", "classifier", "classifier_arguments")
    return json.dumps([content.get(key) for key in (*keys, "stem", "batch_norm")])


def test_every_network_is_built():
    recipes = [read_recipe(name) for name in recipe_names()]
    for recipe in {network(recipe): recipe for recipe in recipes}.values():
        build = build_classifier if recipe.task == "classification" else build_detector
        with torch.device("meta"):
            parameters = list(build(recipe.model, 7).parameters())
        assert sum(each.numel() for each in parameters) > 1e5, recipe.name


@pytest.mark.parametrize(
    "name",
    [
        *("demo", "finetune", "botnet50_detr", "table2_botnet50_36_epochs"),
        *("table4_content_and_absolute", "table7_resnet50_nl_c4", "small_table7_resnet50_bot_c4c5"),
        *("imagenet_canonical_botnet50", "imagenet_scaled_botnet_t3"),
        *("imagenet_scaled_efficientnet_b0", "small_cifar_botnet_s1"),
    ],
)
def test_one_step_on_two_images(name, handwriting, class_folder, backbone_weights):
    recipe = read_recipe(name)
    folder = class_folder if recipe.task == "classification" else handwriting
    changes = [f"data.folder={json.dumps(str(folder))}", "training.batch_size=2"]
    if name == "finetune":
        changes.append(f"model.backbone_weights={json.dumps(str(backbone_weights))}")
    recipe = read_recipe(name, [*SMALL[recipe.kind], *changes])
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
