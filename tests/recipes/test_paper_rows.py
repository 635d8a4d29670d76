"""Rows of the paper's tables: their figures and settings are the paper's, and they differ in what
the table compares."""

import re

import pytest
from timm.data.auto_augment import rand_augment_transform

from botvision.recipes.composition import recipe_names
from botvision.recipes.reading import read_recipe

# Box and mask AP in per cent, as printed; tables 2 to 8.
PAPER_AP = """
table2_resnet50_12_epochs 39.0/35.0    table2_botnet50_12_epochs 39.4/35.3
table2_resnet50_24_epochs 41.2/36.9    table2_botnet50_24_epochs 42.8/38.0
table2_resnet50_36_epochs 42.1/37.7    table2_botnet50_36_epochs 43.6/38.9
table2_resnet50_72_epochs 42.8/37.9    table2_botnet50_72_epochs 43.7/38.7
table3_resnet50_jitter_0.8_1.25 42.8/37.9    table3_botnet50_jitter_0.8_1.25 43.7/38.7
table3_resnet50_jitter_0.5_2.0 43.7/39.1     table3_botnet50_jitter_0.5_2.0 45.3/40.5
table3_resnet50_jitter_0.1_2.0 43.8/39.2     table3_botnet50_jitter_0.1_2.0 45.9/40.7
table4_resnet50 42.1/37.7
table4_content_only 42.7/38.3
table4_relative_only 43.1/38.4
table4_content_and_relative 43.6/38.9
table4_content_and_absolute 42.5/38.1
table5_resnet50 42.1/37.7     table5_botnet50 43.6/38.9
table5_resnet101 43.3/38.4    table5_botnet101 45.5/40.4
table5_resnet152 44.2/39.1    table5_botnet152 46.0/40.6
table6_resnet50_1280 44.0/39.5
table6_botnet50_1024 45.9/40.7    table6_botnet50_1280 46.1/41.2
table6_resnet101_1280 46.4/41.2
table6_botnet101_1024 47.4/42.0    table6_botnet101_1280 47.9/42.4
table7_resnet50 42.1/37.7
table7_resnet50_nl_c4 43.1/38.4
table7_resnet50_bot_c4 43.7/38.9
table7_resnet50_bot_c4c5 44.9/39.7
table7_botnet50 43.6/38.9
table8_botnet152 49.5/43.7
table8_botnet200 49.7/44.4
"""
# Top-1, and top-5 where the paper gives it.
PAPER_TOP = """
imagenet_canonical_resnet50 76.8
imagenet_canonical_botnet50 77.0
imagenet_canonical_botnet50_s1 77.7
imagenet_improved_resnet50 77.7/93.9
imagenet_improved_botnet50 78.3/94.2
imagenet_improved_botnet50_s1 79.1/94.4
imagenet_scaled_botnet_t3 81.7/95.8
imagenet_scaled_botnet_t4 82.8
imagenet_scaled_botnet_t5 83.5
imagenet_scaled_botnet_t6 84.0
imagenet_scaled_botnet_t7 84.7/97.0
imagenet_scaled_botnet_t7_320 84.2
imagenet_scaled_efficientnet_b7 84.7
"""
TABLE8 = {  # AP50 and AP75
    "table8_botnet152": {
        "box_ap50": 71.0,
        "mask_ap50": 68.2,
        "box_ap75": 54.2,
        "mask_ap75": 47.4,
    },
    "table8_botnet200": {
        "box_ap50": 71.3,
        "mask_ap50": 68.9,
        "box_ap75": 54.6,
        "mask_ap75": 48.2,
    },
}


def figures(table, first, second):
    words = table.split()
    found = {}
    for name, printed in zip(words[::2], words[1::2], strict=True):
        values = [float(value) for value in printed.split("/")]
        found[name] = dict(zip((first, second), values, strict=False))
    return found


PAPER = figures(PAPER_AP, "box_ap", "mask_ap") | figures(PAPER_TOP, "top1", "top5")
COCO = sorted(figures(PAPER_AP, "", ""))


def test_the_figures_are_the_papers():
    for name in recipe_names():
        expected = PAPER.get(name, {}) | TABLE8.get(name, {})
        found = read_recipe(name).about.paper
        assert {key: round(100 * value, 6) for key, value in found.items()} == expected, name


def test_every_row_of_the_paper_has_a_recipe_and_its_coco_row_a_small_one():
    names = set(recipe_names())
    assert PAPER.keys() <= names
    assert {f"small_{name}" for name in COCO} <= names
    settings = ("canonical", "improved")
    models = ("resnet50", "botnet50", "botnet50_s1")
    assert {f"small_imagenet_{s}_{m}" for s in settings for m in models} <= names
    assert {f"imagenet_scaled_senet_s{i}" for i in range(6)} <= names
    assert {f"imagenet_scaled_efficientnet_b{i}" for i in range(8)} <= names
    assert {"demo", "finetune", "finetune_cpu", "botnet50_detr"} <= names


def test_figures_that_are_not_the_papers_own_are_said_to_be_so():
    for size in (4, 5, 6):
        assert "quoted" in read_recipe(f"imagenet_scaled_botnet_t{size}").about.source


def differences(one, other):
    """Keys below ``model``, ``data`` and ``training`` that two recipes do not share."""
    found = set()
    for group in ("model", "data", "training"):
        ours, theirs = (getattr(recipe, group).model_dump() for recipe in (one, other))
        assert ours.keys() == theirs.keys()
        found |= {f"{group}.{key}" for key in ours if ours[key] != theirs[key]}
    return found


# What the rows of a table differ in, by the paper.
VARIED = {
    "table2": {"model.backbone", "training.epochs"},
    "table3": {"model.backbone", "data.scale_jitter"},
    "table4": {"model.backbone", "model.backbone_arguments"},
    "table5": {"model.backbone"},
    "table6": {"model.backbone", "model.image_size"},
    "table7": {"model.backbone"},
    "table8": {"model.backbone"},
    "imagenet_canonical": {"model.classifier"},
    "imagenet_improved": {"model.classifier"},
    # Regularization grows with the image.
    "imagenet_scaled": {
        *("model.classifier", "model.image_size", "model.dropout", "model.drop_path"),
    },
}
SMALLER_ALIKE = {"model.backbone_arguments", "model.classifier_arguments"}  # layers and widths


@pytest.mark.parametrize("prefix", ["", "small_"])
@pytest.mark.parametrize("table", VARIED)
def test_rows_of_a_table_differ_in_what_it_compares(table, prefix):
    rows = [read_recipe(n) for n in recipe_names() if n.startswith(f"{prefix}{table}_")]
    if (table, prefix) == ("imagenet_scaled", "small_"):
        assert rows == []
        return
    found = set().union(*(differences(rows[0], row) for row in rows[1:]))
    if prefix:
        assert found <= VARIED[table] | SMALLER_ALIKE
        assert VARIED[table] - found <= {"model.backbone"}  # the depth is an argument
    else:
        assert found == VARIED[table]


def test_settings_of_the_coco_rows():
    for name in COCO:
        recipe = read_recipe(name)
        table = int(name[5])
        jitter = re.search(r"jitter_(.+)_(.+)$", name)
        if jitter:
            expected_jitter = (float(jitter[1]), float(jitter[2]))
        else:
            expected_jitter = (0.1, 2.0) if table in (6, 8) else (0.8, 1.25)
        epochs = re.search(r"_(\d+)_epochs", name)
        expected_epochs = int(epochs[1]) if epochs else 72 if table in (3, 6, 8) else 36
        assert recipe.data.scale_jitter == expected_jitter
        assert recipe.training.epochs == expected_epochs
        assert recipe.model.image_size == (1280 if "1280" in name or table == 8 else 1024)
        assert recipe.training.batch_size == 64
        assert recipe.training.precision == "bfloat16"
        network = re.search(r"(?:resnet|botnet)\d+(?:_nl_c4|_bot_c4c5|_bot_c4)?", name)
        assert recipe.model.backbone == (network[0] if network else "botnet50")
        # The epochs, the jitter and the network's arguments are those of the row in small.
        small = read_recipe(f"small_{name}")
        assert small.training.epochs * 6 == expected_epochs
        assert small.data.scale_jitter == expected_jitter
        assert small.model.image_size * 8 == recipe.model.image_size
        arguments = small.model.backbone_arguments
        assert {k: v for k, v in arguments.items() if k in ("position", "content")} == (
            recipe.model.backbone_arguments
        )


def test_networks_of_the_imagenet_rows():
    for name in recipe_names():
        if name.startswith("imagenet_"):
            network = name.split("_", 2)[2].removesuffix("_320").replace("288", "botnet50")
            assert read_recipe(name).model.classifier.removeprefix("tf_") == network


def test_the_arguments_of_table_4():
    found = {
        name.removeprefix("table4_"): read_recipe(name).model.backbone_arguments
        for name in recipe_names()
        if name.startswith("table4_")
    }
    assert found == {
        "resnet50": {},
        "content_only": {"position": "none"},
        "relative_only": {"content": False},
        "content_and_relative": {},
        "content_and_absolute": {"position": "absolute"},
    }


def test_the_tpu_codes_defaults():
    recipe = read_recipe("table2_resnet50_36_epochs")
    training, model = recipe.training, recipe.model
    assert (training.optimizer, training.momentum, training.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (training.learning_rate, training.base_batch_size) == (0.08, 64)
    assert training.learning_rate * training.warmup_factor == pytest.approx(0.0067)
    assert training.warmup_steps == 500
    steps = [fraction * 22_500 for fraction in training.milestones]
    assert steps == pytest.approx([15_000, 20_000], abs=1)
    assert (model.batch_norm, model.batch_norm_momentum) == ("synchronized", 0.003)
    assert model.batch_norm_eps == 1e-4
    assert (model.rpn_batch_size_per_image, model.rpn_positive_fraction) == (256, 0.5)
    assert (model.box_batch_size_per_image, model.box_positive_fraction) == (512, 0.25)
    assert (model.box_nms_thresh, model.box_score_thresh) == (0.5, 0.05)
    assert (model.box_detections_per_img, model.box_head_width) == (100, 1024)


@pytest.mark.parametrize(
    ("setting", "epochs", "batch", "decay", "augmentation", "smoothing"),
    [
        ("canonical", 100, 1024, 1e-4, None, 0.0),
        ("improved", 200, 4096, 8e-5, "rand-m10-n2", 0.1),
    ],
)
def test_the_imagenet_settings(setting, epochs, batch, decay, augmentation, smoothing):
    recipe = read_recipe(f"imagenet_{setting}_botnet50")
    training = recipe.training
    assert (training.epochs, training.batch_size) == (epochs, batch)
    assert (training.optimizer, training.schedule) == ("sgd", "cosine")
    assert training.weight_decay == decay
    assert recipe.data.augmentation == augmentation
    assert recipe.model.label_smoothing == smoothing
    # Five epochs of ImageNet's 1,281,167 images.
    assert training.warmup_steps * batch == pytest.approx(5 * 1_281_167, rel=1e-3)


def test_regularization_of_the_t_models_is_resnet_rs():
    rows = [read_recipe(f"imagenet_scaled_botnet_t{size}") for size in range(3, 8)]
    assert [row.model.image_size for row in rows] == [224, 224, 256, 320, 384]
    # Of ResNet-RS-152 at 224, ResNet-RS-200 at 256 and ResNet-RS-350 at 320, as published.
    assert [row.model.dropout for row in rows] == [0.25, 0.25, 0.25, 0.4, 0.4]
    assert [row.model.drop_path for row in rows] == [0.0, 0.0, 0.1, 0.1, 0.1]
    for row in rows:
        training = row.training
        assert (training.epochs, training.batch_size) == (350, 4096)
        scale = training.batch_size / training.base_batch_size
        assert training.learning_rate * scale == pytest.approx(1.6)
        assert (training.weight_decay, training.ema_decay, training.momentum) == (4e-5, 0.9999, 0.9)
        assert row.model.label_smoothing == 0.1
        magnitude, layers = (row.data.augmentation.split("-")[index] for index in (1, 3))
        assert (magnitude, layers) == ("m15", "n2")


def test_the_magnitude_of_randaugment_is_not_cut():
    # timm ends it at 10 unless it is told a larger maximum.
    recipe = read_recipe("imagenet_scaled_botnet_t3")
    transform = rand_augment_transform(recipe.data.augmentation, {})
    assert {op.magnitude for op in transform.ops} == {15}
    assert all(op.magnitude_max >= 15 for op in transform.ops)


def test_sizes_of_the_baselines():
    found = {
        name.rpartition("_")[2]: read_recipe(name).model.image_size
        for name in recipe_names()
        if "efficientnet" in name or "senet" in name
    }
    assert list(found.values()) == [
        *(224, 240, 260, 300, 380, 456, 528, 600),
        *(224, 224, 224, 288, 320, 320),
    ]
