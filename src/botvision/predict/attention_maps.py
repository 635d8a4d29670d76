"""Where a position of an image looks, a head each, as an image."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from botvision.attention import MultiHeadSelfAttention2d
from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.predict.class_predictor import ClassPredictor
from botvision.predict.predictor import Predictor

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class AttentionMap:
    """Attention of one position in one layer.

    Attributes:
        layer: Name of the layer in the model.
        heads: Probabilities over the layer's map, float32 [heads, H, W].
        box: The part of the image that they lie over: x1, y1, x2, y2 in pixels.
    """

    layer: str
    heads: Tensor
    box: Box


def attention_maps(
    predictor: Predictor | ClassPredictor, image: Image.Image, at: tuple[int, int]
) -> list[AttentionMap]:
    """Attention maps of a pixel, for every attention layer of the model in order.

    Args:
        predictor: See ``load``.
        image: RGB image.
        at: (x, y) of the pixel.

    Raises:
        BotvisionError: If the pixel is outside the image, or what a classifier looks at of it,
            or the model has no attention.
    """
    x, y = at
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise BotvisionError(
            f"--at {x},{y}: expected a pixel of the {image.width} x {image.height} image"
        )
    if isinstance(predictor, ClassPredictor):
        covered = predictor.preparation.box(image.width, image.height)
        look: Callable[[], object] = partial(predictor.probabilities, [image])
    else:
        covered = _box_of_detector(predictor, image)
        look = partial(predictor.detect, F.pil_to_tensor(image), score=1.0)
    left, top, right, bottom = covered
    if not (left <= x + 0.5 < right and top <= y + 0.5 < bottom):
        x1, y1, x2, y2 = (math.ceil(edge - 0.5) for edge in covered)
        raise BotvisionError(
            f"--at {x},{y}: expected a pixel of the middle that the classifier looks at, x of "
            f"{x1} to {x2 - 1} and y of {y1} to {y2 - 1}"
        )
    seen = left, top, min(right, image.width), min(bottom, image.height)
    found: list[AttentionMap] = []

    def record(name: str, layer: MultiHeadSelfAttention2d, inputs: tuple[Tensor]) -> None:
        rows, columns = inputs[0].shape[2:]
        row = int((y + 0.5 - top) / (bottom - top) * rows)
        column = int((x + 0.5 - left) / (right - left) * columns)
        heads = layer.attention_map(inputs[0], row, column)[0].float().cpu()
        seen_rows = max(1, round(rows * (seen[3] - top) / (bottom - top)))
        seen_columns = max(1, round(columns * (seen[2] - left) / (right - left)))
        found.append(AttentionMap(name, heads[:, :seen_rows, :seen_columns], seen))

    hooks = [
        layer.register_forward_pre_hook(partial(record, name))
        for name, layer in predictor.model.named_modules()
        if isinstance(layer, MultiHeadSelfAttention2d)
    ]
    if not hooks:
        description = predictor.description
        model = description.get("model", {})
        name = model.get("backbone") or model.get("classifier") or description.get("architecture")
        raise BotvisionError(f"{name}: expected a network with attention")
    try:
        look()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _box_of_detector(predictor: Predictor, image: Image.Image) -> Box:
    """What the network's input covers: the image, and padding to its right and bottom."""
    pixels = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True)
    resized, _ = predictor.model.transform([pixels])
    padded_height, padded_width = resized.tensors.shape[-2:]
    height, width = resized.image_sizes[0]
    return 0.0, 0.0, image.width * padded_width / width, image.height * padded_height / height


def draw_attention_maps(
    image: Image.Image, at: tuple[int, int], maps: list[AttentionMap], path: Path
) -> None:
    """Draw attention maps over their image, a row a layer and a column a head.

    Args:
        image: The image.
        at: (x, y) of the pixel that looks; drawn as a cross.
        maps: See ``attention_maps``.
        path: PNG to write or replace.
    """
    columns = max(len(layer.heads) for layer in maps)
    shape = image.height / image.width
    figure = Figure(figsize=(3 * columns, 3 * shape * len(maps) + 0.5), layout="constrained")
    axes = figure.subplots(len(maps), columns, squeeze=False)
    whole = (0, image.width, image.height, 0)
    for row, layer in zip(axes, maps, strict=True):
        left, top, right, bottom = layer.box
        for number, (cell, head) in enumerate(zip(row, layer.heads, strict=False)):
            cell.imshow(image.convert("L"), cmap="gray", extent=whole)
            cell.imshow(
                head.numpy(),
                cmap="inferno",
                alpha=0.6,
                extent=(left, right, bottom, top),
                interpolation="bilinear",
            )
            cell.set(xlim=(0, image.width), ylim=(image.height, 0))
            cell.plot(*at, marker="+", color="cyan", markersize=12, markeredgewidth=2)
            size = "x".join(str(side) for side in head.shape)
            cell.set_title(
                f"{layer.layer.removeprefix('backbone.body.')}\nhead {number}, {size}", fontsize=8
            )
            cell.set_axis_off()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
