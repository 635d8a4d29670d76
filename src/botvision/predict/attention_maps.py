"""Where a position of a picture looks, a head each, as a picture."""

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
from botvision.predict.predictor import Predictor


@dataclass(frozen=True)
class AttentionMap:
    """Attention of one position in one layer.

    Attributes:
        layer: Name of the layer in the model.
        heads: Probabilities over the layer's map, float32 [heads, H, W].
    """

    layer: str
    heads: Tensor


def attention_maps(
    predictor: Predictor, image: Image.Image, at: tuple[int, int]
) -> list[AttentionMap]:
    """Attention maps of a pixel, for every attention layer of the model in order.

    Args:
        predictor: See ``load``.
        image: RGB picture.
        at: (x, y) of the pixel.

    Raises:
        BotvisionError: If the pixel is outside the picture or the model has no attention.
    """
    x, y = at
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise BotvisionError(
            f"--at {x},{y}: expected a pixel of the {image.width} x {image.height} picture"
        )
    found: list[AttentionMap] = []
    hooks = []
    model = predictor.model
    # The detector resizes and pads the picture; the layer's map covers the padded input.
    resized, _ = model.transform([F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True)])
    padded_height, padded_width = resized.tensors.shape[-2:]
    height, width = resized.image_sizes[0]

    def record(name: str, layer: MultiHeadSelfAttention2d, inputs: tuple[Tensor]) -> None:
        rows, columns = inputs[0].shape[2:]
        row = int((y + 0.5) / image.height * height / padded_height * rows)
        column = int((x + 0.5) / image.width * width / padded_width * columns)
        heads = layer.attention_map(inputs[0], row, column)[0].float().cpu()
        seen_rows = max(1, round(rows * height / padded_height))
        seen_columns = max(1, round(columns * width / padded_width))
        found.append(AttentionMap(name, heads[:, :seen_rows, :seen_columns]))

    for name, layer in model.named_modules():
        if isinstance(layer, MultiHeadSelfAttention2d):
            hooks.append(layer.register_forward_pre_hook(partial(record, name)))
    if not hooks:
        raise BotvisionError(
            f"{predictor.description['model']['backbone']}: expected a backbone with attention"
        )
    try:
        predictor.results(F.pil_to_tensor(image), 0, score=1.0)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def draw_attention_maps(
    image: Image.Image, at: tuple[int, int], maps: list[AttentionMap], path: Path
) -> None:
    """Draw attention maps over their picture, a row a layer and a column a head.

    Args:
        image: The picture.
        at: (x, y) of the pixel that looks; drawn as a cross.
        maps: See ``attention_maps``.
        path: PNG to write or replace.
    """
    columns = max(len(layer.heads) for layer in maps)
    shape = image.height / image.width
    figure = Figure(figsize=(3 * columns, 3 * shape * len(maps) + 0.5), layout="constrained")
    axes = figure.subplots(len(maps), columns, squeeze=False)
    extent = (0, image.width, image.height, 0)
    for row, layer in zip(axes, maps, strict=True):
        for number, (cell, head) in enumerate(zip(row, layer.heads, strict=False)):
            cell.imshow(image.convert("L"), cmap="gray", extent=extent)
            cell.imshow(
                head.numpy(), cmap="inferno", alpha=0.6, extent=extent, interpolation="bilinear"
            )
            cell.plot(*at, marker="+", color="cyan", markersize=12, markeredgewidth=2)
            size = "x".join(str(side) for side in head.shape)
            cell.set_title(
                f"{layer.layer.removeprefix('backbone.body.')}\nhead {number}, {size}", fontsize=8
            )
            cell.set_axis_off()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
