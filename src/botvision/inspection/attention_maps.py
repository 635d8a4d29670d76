"""Looking inside: what a pixel or a detected instance attends to, in each layer and through all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from botvision.attention.rows import AttendingLayer, attention_layers, watching_attention
from botvision.errors import BotvisionError
from botvision.images.draw import mask_window
from botvision.images.figures import plain_text, save_figure
from botvision.inspection.attention_figure import Panel, PanelRow, panel_figure
from botvision.inspection.attention_pixels import Pixels
from botvision.inspection.attention_rollout import roll_out
from botvision.tasks.predictor import Box, Predictor
from botvision.tasks.task import find_task

_DPI = 110
_MOST_PIXELS = 60_000  # of a side; matplotlib draws no figure of 65,536


@dataclass(frozen=True)
class AttentionMap:
    """Attention of a position, or the mean attention of several, in one layer.

    Attributes:
        layer: Name of the layer in the model.
        heads: Probabilities over the layer's map, float32 [heads, H, W]. Cells that lie in padding
            alone are left out, so they may sum to less than one.
        box: The part of the image that they lie over: x1, y1, x2, y2 in pixels; the last row and
            column may reach out of the image.
    """

    layer: str
    heads: Tensor
    box: Box

    @property
    def mean(self) -> Tensor:
        """Mean over the heads, float32 [H, W]."""
        return self.heads.mean(0)


@dataclass(frozen=True)
class AttentionRollout:
    """Attention through all attention layers, see ``roll_out``.

    It covers the attention layers alone. The convolutions before, between and after them are
    taken to be local: a cell stays where it is.

    Attributes:
        layers: Names of the layers, in the network's order.
        map: Probabilities over the first layer's map, float32 [H, W].
        box: As in ``AttentionMap``.
    """

    layers: tuple[str, ...]
    map: Tensor
    box: Box


@dataclass(frozen=True)
class Instance:
    """A detected instance.

    Attributes:
        index: Its index among the image's detections, best first, from 0.
        name: Name of its class.
        score: Its score.
        box: x1, y1, x2, y2 in pixels.
        pixels: The pixels of its mask; those of its box where there is no mask, or an empty one.
        has_mask: Whether the pixels are those of a mask.
    """

    index: int
    name: str
    score: float
    box: Box
    pixels: Pixels
    has_mask: bool


@dataclass(frozen=True)
class ImageAttention:
    """What a pixel or an instance of an image attends to.

    Attributes:
        at: (x, y) of the pixel, or the instance.
        maps: The maps of each attention layer, in the network's order.
        rollout: Attention through all these layers.
    """

    at: tuple[int, int] | Instance
    maps: list[AttentionMap]
    rollout: AttentionRollout


def layers_of(predictor: Predictor[Any]) -> list[tuple[str, AttendingLayer]]:
    """Return the names and attention layers of a predictor's model, at least one.

    Raises:
        BotvisionError: If the model has no attention.
    """
    layers = attention_layers(predictor.model)
    if not layers:
        name = find_task(predictor.description.task).title(predictor.description.model)
        raise BotvisionError(f"{name}: expected a network with attention")
    return layers


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
    covered = _covered(predictor, image, at)
    calls, _ = _run(predictor, image, None)
    return _maps(calls, Pixels(np.ones((1, 1), np.bool_), *at), covered, image)


def attention_of_pixel(
    predictor: Predictor[Any], image: Image.Image, at: tuple[int, int]
) -> ImageAttention:
    """Return the attention maps of a pixel, and their roll-out.

    Args:
        predictor: See ``load``.
        image: RGB image.
        at: (x, y) of the pixel.

    Raises:
        BotvisionError: See ``attention_maps``.
    """
    covered = _covered(predictor, image, at)
    calls, _ = _run(predictor, image, None)
    return _attention(calls, at, Pixels(np.ones((1, 1), np.bool_), *at), covered, image)


def attention_of_instance(
    predictor: Predictor[Any],
    image: Image.Image,
    index: int,
    *,
    threshold: float | None = None,
) -> ImageAttention:
    """Return the mean attention maps of a detected instance's pixels, and their roll-out.

    They are the means of the maps of all pixels of the instance's mask, so a cell that the mask
    covers half counts half. Where the detector gives no mask, it is those of the box.

    Args:
        predictor: A detector, see ``load``.
        image: RGB image.
        index: Index of the instance in what ``predictor(image)`` returns: 0 is the best.
        threshold: Smallest score of a detection; None: the default of the task.

    Raises:
        BotvisionError: If there is no such detection, or the model is no detector or has no
            attention.
    """
    calls, found = _run(predictor, image, threshold)
    instance = _instance(predictor, found, image, index, threshold)
    covered = predictor.covered_box(image)
    return _attention(calls, instance, instance.pixels, covered, image)


def attention_figure(
    image: Image.Image,
    at: tuple[int, int] | Instance,
    maps: Sequence[AttentionMap],
    *,
    rollout: AttentionRollout | None = None,
) -> Figure:
    """Return attention maps over their image: one row per layer, one column per head.

    A further column is the mean over the heads, a further row the roll-out. Colors tell how many
    times as much as under uniform attention a cell gets, on one scale for the whole figure:
    uniform attention is colorless. The titles give the largest probability and the entropy as a
    fraction of the largest possible one.

    Args:
        image: The image.
        at: (x, y) of the pixel that looks, drawn as a cross; or the instance, drawn as the outline
            of its mask or as its box.
        maps: See ``attention_maps``.
        rollout: Roll-out to draw; None: none.
    """
    rows = []
    for each in maps:
        panels = [Panel(f"head {number}", head.numpy()) for number, head in enumerate(each.heads)]
        if len(panels) > 1:
            panels.append(Panel(f"mean of {len(panels)} heads", each.mean.numpy()))
        size = "x".join(str(side) for side in each.heads.shape[1:])
        name = each.layer.removeprefix("backbone.body.").removesuffix(".attention")
        rows.append(PanelRow(f"{name}\n{size} cells", each.box, panels))
    if rollout is not None:
        count = len(rollout.layers)
        title = "roll-out of 1 layer" if count == 1 else f"roll-out of {count} layers"
        # Its residual connections look at the query itself, far more than at anything else.
        panels = [Panel("image", None), Panel(title, rollout.map.numpy(), sets_scale=False)]
        rows.append(PanelRow("all layers", rollout.box, panels))
    if isinstance(at, Instance):
        title = f"attention of instance {at.index}: {plain_text(at.name)} {at.score:.2f}"
        lines = at.pixels.outline() if at.has_mask else [_corners(at.box)]
        return panel_figure(image, rows, title, lines=lines)
    title = f"attention of pixel {at[0]},{at[1]}"
    return panel_figure(image, rows, title, cross=(at[0] + 0.5, at[1] + 0.5))


def draw_attention_maps(
    image: Image.Image,
    at: tuple[int, int] | Instance,
    maps: Sequence[AttentionMap],
    path: Path,
    *,
    rollout: AttentionRollout | None = None,
) -> None:
    """Write ``attention_figure`` as a PNG, which is replaced if it exists."""
    figure = attention_figure(image, at, maps, rollout=rollout)
    longest = max(figure.get_size_inches())
    save_figure(figure, path, dpi=min(_DPI, int(_MOST_PIXELS / longest)))


@dataclass(frozen=True)
class _Call:
    """A call of an attention layer in the forward pass."""

    name: str
    layer: AttendingLayer
    x: Tensor
    autocast: dict[str, Any]  # precision in which the layer ran

    @property
    def size(self) -> tuple[int, int]:
        return self.x.shape[2], self.x.shape[3]

    def attend(self, weights: Tensor) -> Tensor:
        """Return the weighted sum of the queries' probabilities, [heads, H, W] on the CPU."""
        with torch.inference_mode(), torch.autocast(**self.autocast):
            return self.layer.weighted_attention(self.x, weights)[0].cpu()

    def attend_by_mean(self, weights: Tensor) -> Tensor:
        """Return the same as the mean over the heads, [H, W]."""
        return self.attend(weights).mean(0)


def _run(
    predictor: Predictor[Any], image: Image.Image, threshold: float | None
) -> tuple[list[_Call], Any]:
    """Return the calls of attention layers in a prediction, and its result."""
    calls: list[_Call] = []

    def record(name: str, layer: AttendingLayer, x: Tensor) -> None:
        # The layer's precision is read here: each task chooses its own.
        kind = x.device.type
        autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }
        # A later layer may write into its input.
        calls.append(_Call(name, layer, x.detach().clone(), autocast))

    layers_of(predictor)
    with watching_attention(predictor.model, record):
        (result,) = predictor.predict([image], threshold=threshold)
    return calls, result


def _covered(predictor: Predictor[Any], image: Image.Image, at: tuple[int, int]) -> Box:
    """Return the part of the image that the network's input covers; the pixel must be in it."""
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
    return covered


def _instance(
    predictor: Predictor[Any],
    found: Any,
    image: Image.Image,
    index: int,
    threshold: float | None,
) -> Instance:
    if not hasattr(found, "xyxy"):
        raise BotvisionError(
            f"instance {index}: expected a detector, got a model for {predictor.task}, which finds "
            "no instances; choose a pixel"
        )
    least = predictor.threshold if threshold is None else threshold
    count = len(found.xyxy)
    if not count:
        raise BotvisionError(
            f"instance {index}: expected one that is detected, got no detections at threshold "
            f"{least:g}; lower it"
        )
    if not 0 <= index < count:
        are = "is 1 detection" if count == 1 else f"are {count} detections"
        expected = "0" if count == 1 else f"0 to {count - 1}"
        raise BotvisionError(
            f"instance {index}: expected {expected}, as there {are} at threshold {least:g}"
        )
    x1, y1, x2, y2 = found.xyxy[index].tolist()
    pixels, has_mask = Pixels.of_box((x1, y1, x2, y2), image.size), False
    if found.mask is not None:
        window, left, top = mask_window(found.mask, index)
        if has_mask := bool(window.any()):
            pixels = Pixels(window, left, top)
    name, score = str(found.data["class_name"][index]), float(found.confidence[index])
    return Instance(index, name, score, (x1, y1, x2, y2), pixels, has_mask)


def _attention(
    calls: list[_Call],
    at: tuple[int, int] | Instance,
    pixels: Pixels,
    covered: Box,
    image: Image.Image,
) -> ImageAttention:
    maps = _maps(calls, pixels, covered, image)
    weights = pixels.fractions(covered, calls[-1].size)
    whole = roll_out([(call.size, call.attend_by_mean) for call in calls], weights)
    shown, box = _seen(whole.float(), covered, image)
    rollout = AttentionRollout(tuple(call.name for call in calls), shown, box)
    return ImageAttention(at, maps, rollout)


def _maps(
    calls: list[_Call], pixels: Pixels, covered: Box, image: Image.Image
) -> list[AttentionMap]:
    maps = []
    for call in calls:
        heads = call.attend(pixels.fractions(covered, call.size)).float()
        maps.append(AttentionMap(call.name, *_seen(heads, covered, image)))
    return maps


def _seen(cells: Tensor, covered: Box, image: Image.Image) -> tuple[Tensor, Box]:
    """Return the cells [..., H, W] that show a part of the image, and the box of these."""
    left, top, right, bottom = covered
    rows, columns = cells.shape[-2:]
    height, width = (bottom - top) / rows, (right - left) / columns
    seen_rows = max(1, min(rows, math.ceil((image.height - top) / height - 1e-6)))
    seen_columns = max(1, min(columns, math.ceil((image.width - left) / width - 1e-6)))
    if seen_rows < rows:
        bottom = top + seen_rows * height
    if seen_columns < columns:
        right = left + seen_columns * width
    return cells[..., :seen_rows, :seen_columns], (left, top, right, bottom)


def _corners(box: Box) -> NDArray[np.float64]:
    x1, y1, x2, y2 = box
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])
