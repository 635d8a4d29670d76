"""The Non-Local block, with which the paper compares the BoT block (table 7)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from botvision.attention import decomposed_attention
from botvision.attention.layer import PointwiseConvolution
from botvision.attention.operation import Operands
from botvision.attention.rows import AttendingLayer
from botvision.attention.transforms import as_leaf


class NonLocal2d(AttendingLayer):
    """The block of Wang et al. 2018 (arXiv 1711.07971, figure 2): [B, C, H, W] to the same.

    The embedded Gaussian with a bottleneck of factor 2, on a map of any size::

        y_i = sum_j softmax_j(theta(x_i) . phi(x_j) / sqrt(C / 2)) g(x_j)
        z_i = norm(output(y_i)) + x_i

    One head and no positions. The paper's figure 4 marks the value projection as missing from a
    Non-Local block; Wang et al. have it as g, and so does this block. The scale is that of their
    code; their text has none.

    The normalization's weight is zero at first, so a block inserted into a trained network does
    not change its output.

    Args:
        channels: Channels C, an even number.
        norm_layer: Class of the normalization after the output projection.
        impl: Implementation of ``decomposed_attention``.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: If C is odd.
    """

    def __init__(
        self,
        channels: int,
        *,
        norm_layer: Any = nn.BatchNorm2d,
        impl: str = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"channels: expected an even number, got {channels}")
        width = channels // 2
        placed: dict[str, Any] = {"device": device, "dtype": dtype}
        self.impl = impl
        self.theta = PointwiseConvolution(channels, width, **placed)
        self.phi = PointwiseConvolution(channels, width, **placed)
        self.g = PointwiseConvolution(channels, width, **placed)
        self.output = nn.Conv2d(width, channels, 1, bias=False, **placed)
        self.norm = norm_layer(channels, **placed)
        self.reset_parameters()
        self.zero_init_last()

    def reset_parameters(self) -> None:
        """Draw the projections from N(0, 0.01 ** 2) (Wang et al.'s code)."""
        for projection in (self.theta, self.phi, self.g, self.output):
            nn.init.normal_(projection.weight, std=0.01)

    def zero_init_last(self) -> None:
        """Make the block the identity; timm calls this for ``zero_init_last``."""
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over ``x``, [B, C, H, W], and add the result to it."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x)
        operands = self.operands(x)
        attended = decomposed_attention(**operands._asdict(), impl=self.impl)
        attended = attended.squeeze(1).transpose(1, 2).unflatten(2, operands.size)
        added: Tensor = self.norm(self.output(attended))
        return x + added

    def projections(self) -> Sequence[nn.Module]:
        """Return the modules that make queries, keys and values."""
        return self.theta, self.phi, self.g

    def operands(self, x: Tensor) -> Operands:
        """Return the arguments of ``decomposed_attention`` for ``x``, [B, C, H, W]."""
        q, k, v = (
            projection(x).permute(0, 2, 3, 1).flatten(1, 2).unsqueeze(1)
            for projection in self.projections()
        )
        size = (x.shape[2], x.shape[3])
        return Operands(q, k, v, None, None, size, float(q.shape[-1]) ** -0.5, content=True)
