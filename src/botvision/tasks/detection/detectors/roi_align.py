"""RoIAlign over a feature pyramid, computed as matrix products on small maps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import MultiScaleRoIAlign

_FINEST_STRIDE = 4
_LARGEST_MAP = 64  # beyond it the dense products cost more than sampling


class PyramidRoIAlign(MultiScaleRoIAlign):
    """torchvision's ``MultiScaleRoIAlign`` over p2..p5, faster where maps are small.

    Bilinear sampling is separable and linear: a region's pooled map is A F B, with F the map and
    A and B the averaged hat functions of its rows and columns. torchvision's kernel runs on one
    CPU core and scatters additions in the backward pass; these products run on all cores, at the
    same cost for any sampling ratio. On GPUs and on maps beyond 64 x 64 torchvision's is used.

    Args:
        levels: Names of p2, p3, ... in this order. A region of 224 pixels is pooled from p4,
            others from the level that fits (Lin et al. 2017, equation 1).
        output_size: Side of the pooled map.
        sampling_ratio: Points sampled along each side of a bin.
    """

    def __init__(self, levels: Sequence[str], output_size: int, sampling_ratio: int) -> None:
        super().__init__(list(levels), output_size, sampling_ratio)

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Return pooled maps [all boxes, C, side, side] of each image's boxes [n, 4] in pixels."""
        features = [x[name] for name in self.featmap_names]
        if features[0].is_cuda or max(features[0].shape[-2:]) > _LARGEST_MAP:
            return super().forward(x, boxes, image_shapes)
        together = pad_sequence(boxes, batch_first=True)
        level = self._levels(together, len(features))
        pooled = torch.stack(
            [
                self._pool(map_, together, level == number, _FINEST_STRIDE * 2**number)
                for number, map_ in enumerate(features)
            ]
        ).sum(dim=0)
        return torch.cat([maps[: len(own)] for maps, own in zip(pooled, boxes, strict=True)])

    def _levels(self, boxes: Tensor, count: int) -> Tensor:
        sides = boxes[..., 2:] - boxes[..., :2]
        size = sides.prod(dim=-1).sqrt().clamp(min=1e-6)
        level = torch.floor(self.canonical_level + torch.log2(size / self.canonical_scale) + 1e-6)
        return level.clamp(2, count + 1) - 2

    def _pool(self, features: Tensor, boxes: Tensor, here: Tensor, stride: int) -> Tensor:
        """Return one level's pooled maps [B, R, C, side, side], zero for other levels' regions."""
        batch, channels, height, width = features.shape
        regions, side = boxes.shape[1], self.output_size[0]
        scaled = boxes / stride
        across = self._hats(scaled[..., 0], scaled[..., 2], width)
        down = self._hats(scaled[..., 1], scaled[..., 3], height) * here[..., None, None]
        rows = down.flatten(1, 2) @ features.permute(0, 2, 1, 3).flatten(2)
        cells = rows.reshape(batch, regions, side * channels, width) @ across.transpose(-1, -2)
        return cells.unflatten(2, (side, channels)).transpose(2, 3)

    def _hats(self, first: Tensor, last: Tensor, length: int) -> Tensor:
        """Return weights [B, R, side, length] of a map's rows or columns in each bin."""
        side, samples = self.output_size[0], self.sampling_ratio
        offsets = (torch.arange(side * samples, device=first.device) + 0.5) / (side * samples)
        extent = (last - first).clamp(min=1)  # torchvision's smallest region is a cell
        sampled = (first[..., None] + extent[..., None] * offsets)[..., None]
        cells = torch.arange(length, device=first.device)
        hats = (1 - (sampled.clamp(0, length - 1) - cells).abs()).clamp(min=0)
        hats = hats * (sampled <= length)  # points beyond the map count as zero there, too
        return hats.unflatten(-2, (side, samples)).mean(dim=-2)
