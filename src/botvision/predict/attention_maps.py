"""Attention maps of one query position, one panel per head."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from botvision.attention import MultiHeadSelfAttention2d
from botvision.errors import BotvisionError
from botvision.images.figures import save_figure
from botvision.tasks.predictor import Box, Predictor
from botvision.tasks.task import find_task


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
    predictor: Predictor[Any], image: Image.Image, at: tuple[int, int]
) -> list[AttentionMap]:
    """Return the attention maps of a pixel, for every attention layer of the model in order.

    Args:
        predictor: See ``load``.
        image: RGB image.
        at: (x, y) of the pixel.

    Raises:
        BotvisionError: If the pixel is outside the part of the image that the network sees, or
            the model has no attention.
    """
    x, y = at
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise BotvisionError(
            f"pixel {x},{y}: expected one of the {image.width} x {image.height} image"
        )
    covered = predictor.covered_box(image)
    left, top, right, bottom = covered
    if not (left <= x + 0.5 < right and top <= y + 0.5 < bottom):
        x1, y1, x2, y2 = (math.ceil(edge - 0.5) for edge in covered)
        raise BotvisionError(
            f"pixel {x},{y}: expected one of the part that the network sees, x from {x1} to "
            f"{x2 - 1} and y from {y1} to {y2 - 1}"
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
        name = find_task(predictor.description.task).title(predictor.description.model)
        raise BotvisionError(f"{name}: expected a network with attention")
    try:
        predictor.predict([image])
    finally:
        for hook in hooks:
            hook.remove()
    return found


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
        name = layer.layer.removeprefix("backbone.body.")
        for number, (cell, head) in enumerate(zip(row, layer.heads, strict=False)):
            cell.imshow(image.convert("L"), cmap="gray", extent=whole)
            where = (left, right, bottom, top)
            shown = head.numpy()
            cell.imshow(shown, "inferno", alpha=0.6, extent=where, interpolation="bilinear")
            cell.set(xlim=(0, image.width), ylim=(image.height, 0))
            cell.plot(*at, marker="+", color="cyan", markersize=12, markeredgewidth=2)
            size = "x".join(str(side) for side in head.shape)
            cell.set_title(f"{name}\nhead {number}, {size}", fontsize=8)
            cell.set_axis_off()
    save_figure(figure, path, dpi=110)
