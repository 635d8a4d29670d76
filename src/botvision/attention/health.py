"""Health of attention: what the heads of a network look at, in a few figures per layer.

Through training the logits can grow until every query looks at the same few keys: attention
entropy collapse (Zhai et al. 2023, arXiv 2303.06296). Losses and metrics do not show it.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from botvision.attention.operation import Operands, softmax_dtype
from botvision.attention.reference import attention_probabilities
from botvision.attention.rows import AttendingLayer, attention_layers, watching_attention

COLLAPSED_ENTROPY = 0.4
"""Fraction of the largest entropy below which a head may have collapsed."""

COLLAPSED_INFORMATION = 0.3
"""Fraction of the largest mutual information below which it may have collapsed."""

_GRID = 16  # rows and columns of queries, at most


@dataclass(frozen=True)
class LayerHealth:
    """Figures of an attention layer; a tuple holds one value per head.

    Each is a mean over images and over queries that are spread evenly over the map.

    Attributes:
        layer: Name of the layer in the model.
        map_size: (H, W) of the last map seen, N = H W cells.
        entropy: Entropy of the attention as a fraction of its maximum, log N: 1 if it is uniform,
            0 if all of it is on one key.
        mutual_information: Mutual information of query and key in nats, between 0 and log N: 0 if
            all queries have the same attention.
        content_std: Standard deviation over the keys of the content logits q . k.
        position_std: Standard deviation over the keys of the position logits.
        distance: Mean distance between query and attended key in cells.
        overlap: Attention that two heads have in common, sum over the keys of min(p, p'), mean
            over the pairs of heads; None for a single head.
    """

    layer: str
    map_size: tuple[int, int]
    entropy: tuple[float, ...]
    mutual_information: tuple[float, ...]
    content_std: tuple[float, ...]
    position_std: tuple[float, ...]
    distance: tuple[float, ...]
    overlap: float | None

    @property
    def collapsed(self) -> tuple[int, ...]:
        """Heads that look at the same few keys from everywhere.

        Their entropy is below 40% of its maximum, and their mutual information below 30% of its
        own: attention on one key is sound if each query has another key.
        """
        largest = math.log(math.prod(self.map_size))
        figures = zip(self.entropy, self.mutual_information, strict=True)
        return tuple(
            head
            for head, (entropy, information) in enumerate(figures)
            if entropy < COLLAPSED_ENTROPY and information < COLLAPSED_INFORMATION * largest
        )


class HealthRecorder:
    """Collects the figures of attention layers while they run; see ``recording_health``."""

    def __init__(self, images: int) -> None:
        self._wanted = images
        self._seen: dict[str, int] = {}
        self._sums: dict[str, Tensor] = {}
        self._maps: dict[str, tuple[int, int]] = {}

    def record(self, name: str, layer: AttendingLayer, x: Tensor) -> None:
        """Add the figures of a layer for its input, [B, C, H, W]."""
        left = self._wanted - self._seen.get(name, 0)
        for index in range(min(left, len(x))):
            with torch.no_grad():
                operands = layer.operands(x[index : index + 1])
                figures = _figures(operands)
            self._sums[name] = self._sums[name] + figures if name in self._sums else figures
            self._seen[name] = self._seen.get(name, 0) + 1
            self._maps[name] = operands.size

    @property
    def images(self) -> int:
        """Number of images measured."""
        return max(self._seen.values(), default=0)

    def layers(self) -> list[LayerHealth]:
        """Return the figures of the layers that ran, in the order of their first run."""
        found = []
        for name, sums in self._sums.items():
            *figures, overlaps = (tuple(row) for row in (sums / self._seen[name]).tolist())
            entropy, information, content, position, distance = figures
            found.append(
                LayerHealth(
                    layer=name,
                    map_size=self._maps[name],
                    entropy=entropy,
                    mutual_information=information,
                    content_std=content,
                    position_std=position,
                    distance=distance,
                    overlap=overlaps[0] if len(overlaps) > 1 else None,
                )
            )
        return found


@contextmanager
def recording_health(model: nn.Module, images: int) -> Iterator[HealthRecorder]:
    """Measure the attention of the images that a model sees inside the block.

    Args:
        model: Model with attention layers; one without gives no figures.
        images: Number of images to measure; later ones are not.
    """
    recorder = HealthRecorder(images)
    with watching_attention(model, recorder.record):
        yield recorder


def attention_health(model: nn.Module, images: Tensor | Sequence[Tensor]) -> list[LayerHealth]:
    """Measure what the attention of a model does for some images.

    Args:
        model: Network with attention of this package: a BoTNet, a ResNet with inserted BoT or
            Non-Local blocks, another package's BoTNet after ``convert_attention``, or a detector.
        images: The model's argument: [B, 3, H, W], or a list of [3, H, W] for a detector; on the
            model's device, and normalized if the model expects it.

    Returns:
        The figures of each layer, in the order in which the layers run.

    Raises:
        ValueError: If the model has no attention layer.
    """
    if not attention_layers(model):
        raise ValueError(
            f"model: expected a network with attention, got {type(model).__name__} without; "
            "convert_attention replaces that of other packages"
        )
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), recording_health(model, len(images)) as recorder:
            model(images)
    finally:
        model.train(was_training)
    return recorder.layers()


def _figures(operands: Operands) -> Tensor:
    """Return the rows of figures of one image, [6, heads], in the order of ``LayerHealth``."""
    height, width = operands.size
    device = operands.v.device
    rows, columns = (
        torch.linspace(0, side - 1, min(side, _GRID), device=device).round().long()
        for side in (height, width)
    )
    queries = (rows[:, None] * width + columns).flatten()
    asked = operands.at(queries)
    attention = attention_probabilities(asked)[0]  # [heads, Q, N]
    entropy = _entropy(attention).mean(-1)
    information = (_entropy(attention.mean(1)) - entropy).clamp(min=0)
    largest = math.log(height * width)
    # Distance of each query to each key, [Q, N].
    down, right = (
        (torch.arange(side, device=device) - asked_at[:, None]).to(attention)
        for side, asked_at in ((height, rows), (width, columns))
    )
    away = torch.hypot(down[:, None, :, None], right[None, :, None, :])
    away = away.flatten(2).flatten(0, 1)
    figures = (
        entropy / largest if largest else torch.ones_like(entropy),
        information,
        _content_std(asked),
        _position_std(asked),
        (attention * away).sum(-1).mean(-1),
        _overlap(attention).expand(len(attention)),
    )
    return torch.stack([figure.to(attention) for figure in figures]).cpu()


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)


def _content_std(asked: Operands) -> Tensor:
    if not asked.content:
        return asked.q.new_zeros(asked.q.shape[1])
    dtype = softmax_dtype(asked.q.dtype)
    logits = (asked.q.to(dtype) * asked.scale) @ asked.k.to(dtype).transpose(-1, -2)
    return logits[0].std(-1, correction=0).mean(-1)


def _position_std(asked: Operands) -> Tensor:
    """The two terms vary independently over the keys, so their variances add up."""
    dtype = softmax_dtype(asked.q.dtype)
    variances = [
        bias[0].to(dtype).var(-1, correction=0)
        for bias in (asked.bias_h, asked.bias_w)
        if bias is not None
    ]
    if not variances:
        return asked.q.new_zeros(asked.q.shape[1])
    return torch.stack(variances).sum(0).sqrt().mean(-1)


def _overlap(attention: Tensor) -> Tensor:
    """Return the mean overlap of the pairs of heads; 0 for a single head."""
    pairs = torch.combinations(torch.arange(len(attention)))
    common = [torch.minimum(attention[a], attention[b]).sum(-1).mean() for a, b in pairs.tolist()]
    return torch.stack(common).mean() if common else attention.new_zeros(())
