"""The rows of the paper's tables as recipes, and their small forms for two CPU cores.

The letters beside values are those of docs/recipes.md: P the paper's, R ResNet-RS's, O ours.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

Content = dict[str, Any]
"""A recipe as read from YAML, not validated yet."""

_COCO_IMAGES = 118_287
_COCO_METRICS = ("box_ap", "mask_ap", "box_ap50", "mask_ap50", "box_ap75", "mask_ap75")
_TORCHRUN = "torchrun --nproc-per-node 8 --no-python botvision train"
_NARROW, _MIDDLE, _WIDE = (0.8, 1.25), (0.5, 2.0), (0.1, 2.0)  # ranges of the scale jitter


@dataclass(frozen=True)
class Network:
    """A backbone of tables 2 to 8.

    Attributes:
        title: Name in the paper.
        images_per_second: Estimated training speed of Mask R-CNN at 1024 pixels on one GPU.
        small: Description of the network that stands for it in the small forms.
        blocks: Blocks of c2 to c5 of that network; None: those of ``botnet_tiny``.
    """

    title: str
    images_per_second: float
    small: str
    blocks: tuple[int, int, int, int] | None = None


_TWIN = (2, 2, 2, 2)
NETWORKS = {
    "resnet50": Network("ResNet-50", 15, "botnet_tiny's convolutional twin"),
    "resnet101": Network("ResNet-101", 11, "the twin, 4 blocks more", (2, 2, 6, 2)),
    "resnet152": Network("ResNet-152", 9, "the twin, 9 blocks more", (2, 4, 9, 2)),
    "botnet50": Network("BoTNet-50", 13, "botnet_tiny"),
    "botnet101": Network("BoTNet-101", 10, "botnet_tiny, 4 blocks more", (2, 2, 6, 2)),
    "botnet152": Network("BoTNet-152", 8, "botnet_tiny, 9 blocks more", (2, 4, 9, 2)),
    "botnet200": Network("BoTNet-200", 6.5, "botnet_tiny, 13 blocks more", (2, 8, 9, 2)),
}
for _key, _speed, _blocks in (
    ("resnet50_nl_c4", 14, "a Non-Local block in c4"),
    ("resnet50_bot_c4", 14, "a BoT block in c4"),
    ("resnet50_bot_c4c5", 12, "BoT blocks in c4 and c5"),
):
    NETWORKS[_key] = Network(f"ResNet-50 and {_blocks}", _speed, f"the twin and {_blocks}", _TWIN)


@dataclass(frozen=True)
class CocoRow:
    """A row of tables 2 to 8: Mask R-CNN on COCO.

    Attributes:
        table: Number of the table.
        row: Rest of the recipe's name after the table.
        network: Backbone, a key of ``NETWORKS``.
        epochs: Length of the training.
        figures: Box and mask AP in percent; in table 8 also both at IoU 0.5 and 0.75.
        jitter: Range of the scale jitter.
        side: Side of the square training image in pixels.
    """

    table: int
    row: str
    network: str
    epochs: int
    figures: tuple[float, ...]
    jitter: tuple[float, float] = _NARROW
    side: int = 1024


COCO_ROWS = (
    # Network, epochs, box and mask AP, jitter and side: P.
    CocoRow(2, "resnet50_12_epochs", "resnet50", 12, (39.0, 35.0)),
    CocoRow(2, "botnet50_12_epochs", "botnet50", 12, (39.4, 35.3)),
    CocoRow(2, "resnet50_24_epochs", "resnet50", 24, (41.2, 36.9)),
    CocoRow(2, "botnet50_24_epochs", "botnet50", 24, (42.8, 38.0)),
    CocoRow(2, "resnet50_36_epochs", "resnet50", 36, (42.1, 37.7)),
    CocoRow(2, "botnet50_36_epochs", "botnet50", 36, (43.6, 38.9)),
    CocoRow(2, "resnet50_72_epochs", "resnet50", 72, (42.8, 37.9)),
    CocoRow(2, "botnet50_72_epochs", "botnet50", 72, (43.7, 38.7)),
    CocoRow(3, "resnet50_jitter_0.8_1.25", "resnet50", 72, (42.8, 37.9)),
    CocoRow(3, "botnet50_jitter_0.8_1.25", "botnet50", 72, (43.7, 38.7)),
    CocoRow(3, "resnet50_jitter_0.5_2.0", "resnet50", 72, (43.7, 39.1), _MIDDLE),
    CocoRow(3, "botnet50_jitter_0.5_2.0", "botnet50", 72, (45.3, 40.5), _MIDDLE),
    CocoRow(3, "resnet50_jitter_0.1_2.0", "resnet50", 72, (43.8, 39.2), _WIDE),
    CocoRow(3, "botnet50_jitter_0.1_2.0", "botnet50", 72, (45.9, 40.7), _WIDE),
    CocoRow(4, "resnet50", "resnet50", 36, (42.1, 37.7)),
    CocoRow(4, "content_only", "botnet50", 36, (42.7, 38.3)),
    CocoRow(4, "relative_only", "botnet50", 36, (43.1, 38.4)),
    CocoRow(4, "content_and_relative", "botnet50", 36, (43.6, 38.9)),
    CocoRow(4, "content_and_absolute", "botnet50", 36, (42.5, 38.1)),
    CocoRow(5, "resnet50", "resnet50", 36, (42.1, 37.7)),
    CocoRow(5, "botnet50", "botnet50", 36, (43.6, 38.9)),
    CocoRow(5, "resnet101", "resnet101", 36, (43.3, 38.4)),
    CocoRow(5, "botnet101", "botnet101", 36, (45.5, 40.4)),
    CocoRow(5, "resnet152", "resnet152", 36, (44.2, 39.1)),
    CocoRow(5, "botnet152", "botnet152", 36, (46.0, 40.6)),
    CocoRow(6, "resnet50_1280", "resnet50", 72, (44.0, 39.5), _WIDE, 1280),
    CocoRow(6, "botnet50_1024", "botnet50", 72, (45.9, 40.7), _WIDE),
    CocoRow(6, "botnet50_1280", "botnet50", 72, (46.1, 41.2), _WIDE, 1280),
    CocoRow(6, "resnet101_1280", "resnet101", 72, (46.4, 41.2), _WIDE, 1280),
    CocoRow(6, "botnet101_1024", "botnet101", 72, (47.4, 42.0), _WIDE),
    CocoRow(6, "botnet101_1280", "botnet101", 72, (47.9, 42.4), _WIDE, 1280),
    CocoRow(7, "resnet50", "resnet50", 36, (42.1, 37.7)),
    CocoRow(7, "resnet50_nl_c4", "resnet50_nl_c4", 36, (43.1, 38.4)),
    CocoRow(7, "resnet50_bot_c4", "resnet50_bot_c4", 36, (43.7, 38.9)),
    CocoRow(7, "resnet50_bot_c4c5", "resnet50_bot_c4c5", 36, (44.9, 39.7)),
    CocoRow(7, "botnet50", "botnet50", 36, (43.6, 38.9)),
    # O: epochs and jitter, which the paper's main text does not give; table 6's best.
    CocoRow(8, "botnet152", "botnet152", 72, (49.5, 43.7, 71.0, 68.2, 54.2, 47.4), _WIDE, 1280),
    CocoRow(8, "botnet200", "botnet200", 72, (49.7, 44.4, 71.3, 68.9, 54.6, 48.2), _WIDE, 1280),
)

_POSITIONS: dict[str, tuple[str, Content]] = {
    # Rows of table 4: title, and arguments of the backbone (P).
    "resnet50": ("no attention", {}),
    "content_only": ("content logits alone", {"position": "none"}),
    "relative_only": ("relative position logits alone", {"content": False}),
    "content_and_relative": ("content and relative positions", {}),
    "content_and_absolute": ("content and absolute positions", {"position": "absolute"}),
}


@dataclass(frozen=True)
class ImageNetRow:
    """A row of section 4.8: a classifier on ImageNet.

    Attributes:
        row: Rest of the recipe's name after the setting.
        network: Name of the classifier.
        title: Name in the paper.
        time: Estimated time on 8 GPUs.
        speed: Estimated images per second on each of them.
        figures: Accuracy in percent, top-1 and, where the paper has it, top-5.
        side: Side of the square training image in pixels; None: that of the setting.
        like: T model whose regularization it has; None: that of the setting.
    """

    row: str
    network: str
    title: str
    time: str
    speed: int
    figures: tuple[float, ...] = ()
    side: int | None = None
    like: str | None = None


CANONICAL_ROWS = (
    # Network and accuracy: P.
    ImageNetRow("resnet50", "resnet50", "ResNet-50", "5 hours", 1000, (76.8,)),
    ImageNetRow("botnet50", "botnet50", "BoTNet-50", "4 hours", 1000, (77.0,)),
    ImageNetRow("botnet50_s1", "botnet50_s1", "BoTNet-S1-50", "6 hours", 700, (77.7,)),
)
IMPROVED_ROWS = (
    ImageNetRow("resnet50", "resnet50", "ResNet-50", "9 hours", 1000, (77.7, 93.9)),
    ImageNetRow("botnet50", "botnet50", "BoTNet-50", "9 hours", 1000, (78.3, 94.2)),
    ImageNetRow("botnet50_s1", "botnet50_s1", "BoTNet-S1-50", "12 hours", 700, (79.1, 94.4)),
)
REGULARIZATION = {
    # Dropout and stochastic depth: R, as the paper gives no values. Of which network: O.
    "t3": (0.25, 0.0),  # of ResNet-RS-152 at 224
    "t4": (0.25, 0.0),
    "t5": (0.25, 0.1),  # of ResNet-RS-200 at 256
    "t6": (0.4, 0.1),  # of ResNet-RS-350 at 320
    "t7": (0.4, 0.1),
}
_QUOTED = ("botnet_t4", "botnet_t5", "botnet_t6")  # accuracy from later papers or from memory


def _baseline(
    family: str, size: str, time: str, speed: int, side: int, like: str, *top1: float
) -> ImageNetRow:
    row = f"{family.lower()}_{size.lower()}"
    network = row if family == "SENet" else f"tf_{row}"
    return ImageNetRow(row, network, f"{family}-{size}", time, speed, top1, side, like)


SCALED_ROWS = (
    # Network, accuracy and side: P.
    ImageNetRow("botnet_t3", "botnet_t3", "BoTNet-T3", "28 hours", 500, (81.7, 95.8), 224, "t3"),
    ImageNetRow("botnet_t4", "botnet_t4", "BoTNet-T4", "42 hours", 400, (82.8,), 224, "t4"),
    ImageNetRow("botnet_t5", "botnet_t5", "BoTNet-T5", "3 days", 200, (83.5,), 256, "t5"),
    ImageNetRow("botnet_t6", "botnet_t6", "BoTNet-T6", "4 days", 200, (84.0,), 320, "t6"),
    ImageNetRow("botnet_t7", "botnet_t7", "BoTNet-T7", "7 days", 90, (84.7, 97.0), 384, "t7"),
    ImageNetRow("botnet_t7_320", "botnet_t7", "BoTNet-T7", "5 days", 100, (84.2,), 320, "t7"),
    _baseline("SENet", "S0", "16 hours", 1000, 224, "t3"),
    _baseline("SENet", "S1", "31 hours", 500, 224, "t3"),
    _baseline("SENet", "S2", "45 hours", 300, 224, "t3"),
    _baseline("SENet", "S3", "3 days", 200, 288, "t5"),  # O: the side, our reading
    _baseline("SENet", "S4", "5 days", 100, 320, "t6"),  # O: the network, our reading
    _baseline("SENet", "S5", "8 days", 80, 320, "t6"),
    _baseline("EfficientNet", "B0", "8 hours", 2000, 224, "t3"),
    _baseline("EfficientNet", "B1", "14 hours", 1000, 240, "t3"),
    _baseline("EfficientNet", "B2", "19 hours", 800, 260, "t3"),
    _baseline("EfficientNet", "B3", "35 hours", 400, 300, "t5"),
    _baseline("EfficientNet", "B4", "3 days", 200, 380, "t5"),
    _baseline("EfficientNet", "B5", "8 days", 80, 456, "t6"),
    _baseline("EfficientNet", "B6", "15 days", 40, 528, "t7"),
    _baseline("EfficientNet", "B7", "30 days", 20, 600, "t7", 84.7),
)
_SETTINGS = {"canonical": CANONICAL_ROWS, "improved": IMPROVED_ROWS, "scaled": SCALED_ROWS}
_EPOCHS = {"canonical": 100, "improved": 200, "scaled": 350}  # for titles; the pieces set them


@cache
def paper_rows() -> dict[str, Content]:
    """Return the content of each row and small form by name; read only."""
    contents = [form for row in COCO_ROWS for form in (_coco(row), _small_coco(row))]
    for setting, rows in _SETTINGS.items():
        contents += [_imagenet(setting, row) for row in rows]
        if setting != "scaled":
            contents += [_small_imagenet(setting, row) for row in rows]
    return {content["name"]: content for content in contents}


def _coco(row: CocoRow) -> Content:
    network, name = NETWORKS[row.network], _name(row)
    speed = network.images_per_second * (1024 / row.side) ** 2
    hours = _COCO_IMAGES * row.epochs / (8 * speed) / 3600
    content: Content = {
        "base": ["mask_rcnn_1024", "tpu_schedule"],
        "name": name,
        "about": _about(
            f"Mask R-CNN with {network.title}{_compared(row, row.epochs, row.side)}",
            f"table {row.table}",
            f"{_TORCHRUN} {name} --data COCO --backbone-weights WEIGHTS",
            f"about {hours:.0f} hours, estimated from {speed:.2g} images/s on each GPU",
            dict(zip(_COCO_METRICS, row.figures, strict=False)),
        ),
        "model": {"backbone": row.network, "image_size": row.side},
        "data": {"scale_jitter": list(row.jitter)},
        "training": {"epochs": row.epochs},
    }
    if _position(row):
        content["model"]["backbone_arguments"] = _position(row)
    if row.table == 8:
        content["training"]["micro_batch_size"] = 4  # O: memory
    return content


def _small_coco(row: CocoRow) -> Content:
    network, name = NETWORKS[row.network], f"small_{_name(row)}"
    epochs, side = row.epochs // 6, row.side // 8  # O
    more = sum(network.blocks or _TWIN) - sum(_TWIN)
    minutes = epochs * 5 / 6 * (1 + 0.08 * more) * (side / 128) ** 2
    model: Content = {"image_size": side}
    if row.network.startswith("botnet"):
        model["backbone"] = "botnet_tiny"  # O
    elif network.blocks == _TWIN:
        model["backbone"] = row.network  # P
    arguments = {} if network.blocks is None else {"layers": list(network.blocks)}  # O
    if arguments or _position(row):
        model["backbone_arguments"] = {**arguments, **_position(row)}
    is_twin = row.network.startswith("resnet")
    return {
        "base": ["small_canonical", "small_resnet"] if is_twin else "small_canonical",
        "name": name,
        "about": _about(
            f"Small form of {_name(row)}, {network.small}{_compared(row, epochs, side)}",
            f"table {row.table}",
            f"botvision train {name} --data handwriting",
            f"about {minutes:.0f} minutes and the evaluations, estimated from the demo's",
        ),
        "model": model,
        "data": {"scale_jitter": list(row.jitter)},
        "training": {"epochs": epochs},
    }


def _imagenet(setting: str, row: ImageNetRow) -> Content:
    name = f"imagenet_{setting}_{row.row}"
    at = "" if row.side is None else f" at {row.side}"
    quoted = "; figure quoted from later papers or from memory" if row.row in _QUOTED else ""
    content: Content = {
        "base": f"imagenet_{setting}",
        "name": name,
        "about": _about(
            f"{row.title} on ImageNet{at}, {_EPOCHS[setting]} epochs",
            f"section 4.8, {setting} setting{quoted}",
            f"{_TORCHRUN} {name} --data IMAGENET",
            f"about {row.time}, estimated from {row.speed} images/s on each GPU",
            dict(zip(("top1", "top5"), row.figures, strict=False)),
        ),
        "model": {"classifier": row.network},
    }
    if row.side is not None:
        content["model"]["image_size"] = row.side
    if row.like is not None:
        dropout, drop_path = REGULARIZATION[row.like]
        content["model"] |= {"dropout": dropout, "drop_path": drop_path}
    return content


def _small_imagenet(setting: str, row: ImageNetRow) -> Content:
    full, epochs = f"imagenet_{setting}_{row.row}", _EPOCHS[setting] // 10  # O
    small = f"{row.title.replace('50', '26')} of half the width on small images"
    model: Content = {"classifier": row.network.removesuffix("_s1").replace("50", "26")}  # O
    if row.network.endswith("_s1"):
        model["classifier_arguments"] = {"output_stride": 16}  # P
    return {
        "base": [f"imagenet_{setting}", f"small_{setting}_images"],
        "name": f"small_{full}",
        "about": _about(
            f"Small form of {full}, {small}, {epochs} epochs",
            f"section 4.8, {setting} setting",
            f"botvision train small_{full} --data IMAGES",
            f"about {epochs} minutes for 10,000 images of 32 pixels, estimated",
        ),
        "model": model,
    }


def _name(row: CocoRow) -> str:
    return f"table{row.table}_{row.row}"


def _position(row: CocoRow) -> Content:
    return dict(_POSITIONS[row.row][1]) if row.table == 4 else {}


def _compared(row: CocoRow, epochs: int, side: int) -> str:
    """The end of a title: what the row's table compares."""
    if row.table == 4:
        return f", {_POSITIONS[row.row][0]}"
    pixels = f", {side} pixels" if row.table in (6, 8) else ""
    low, high = row.jitter
    jitter = f", scale jitter {low} to {high}" if row.table in (3, 6, 8) else ""
    return f"{pixels}, {epochs} epochs{jitter}"


def _about(
    title: str, source: str, command: str, time: str, percents: dict[str, float] | None = None
) -> Content:
    about: Content = {"title": title, "source": source, "command": command}
    about["hardware"] = "8 GPUs of 80 GB" if command.startswith("torchrun") else "two CPU cores"
    about["time"] = time
    if percents:
        about["paper"] = {name: round(value / 100, 3) for name, value in percents.items()}
    return about
