"""Position encodings of the paper's table 4 as row and column biases of any map size."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botvision.attention.transforms import is_tracing


def resize_position_table(table: Tensor, length: int, *, relative: bool) -> Tensor:
    """Interpolate a position table linearly to another number of rows.

    A relative table holds the offsets -(S-1) .. S-1; its ends and its center (offset 0) stay
    where they are, so the offsets are stretched with the map. An absolute table is read at cell
    centers, as an image is resized. A table of the right length is returned as it is.

    Args:
        table: [rows, d].
        length: Number of rows of the result; odd for a relative table.
        relative: Whether the table is relative or absolute.

    Returns:
        [length, d], differentiable in ``table``.
    """
    rows = table.shape[0]
    if _is_known(rows == length):
        return table
    # A trace interpolates here too: the bias of a map of one row is the same for all its keys, and
    # the softmax does not see it.
    if relative and not is_tracing() and length == 1:
        center = rows // 2
        return table[center : center + 1]
    resized = F.interpolate(
        table.t().unsqueeze(0), size=length, mode="linear", align_corners=relative
    )
    return resized.squeeze(0).t()


def _is_known(condition: bool) -> bool:
    """Return whether a condition holds; False if it depends on a symbolic or traced size.

    Evaluating it would specialize a compiled, exported or traced model to the map at hand.
    """
    if is_tracing():
        return False
    if not torch.compiler.is_compiling():
        return condition
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to import

    return statically_known_true(condition)


class _Position2d(nn.Module):
    """Two tables, one for rows and one for columns, shared by the heads."""

    relative: bool

    def __init__(self, dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.height = nn.Parameter(torch.empty(self._rows(size[0]), dim))
        self.width = nn.Parameter(torch.empty(self._rows(size[1]), dim))
        self.reset_parameters()

    def _rows(self, side: int) -> int:
        return 2 * side - 1 if self.relative else side

    def reset_parameters(self) -> None:
        """Normal with standard deviation d ** -0.5 (authors' code)."""
        for table in (self.height, self.width):
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    def tables(self, size: tuple[int, int], scale: float) -> tuple[Tensor, Tensor]:
        """Return both tables, interpolated to a map of ``size`` and multiplied by ``scale``."""
        height, width = (
            resize_position_table(table, self._rows(side), relative=self.relative) * scale
            for table, side in zip((self.height, self.width), size, strict=True)
        )
        return height, width

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Resize tables made for another map; those of another head width are refused."""
        for name in ("height", "width"):
            table, own = state_dict.get(prefix + name), getattr(self, name)
            if table is not None and table.ndim == 2 and table.shape[1] == own.shape[1]:
                state_dict[prefix + name] = resize_position_table(
                    table, len(own), relative=self.relative
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return the part of ``repr`` in the parentheses."""
        return f"size={self.size}"


class RelativePosition2d(_Position2d):
    """Logits q . R_h[key row - query row] and q . R_w[key column - query column].

    Paper section 3.1 and figure 4. Parameters ``height`` [2H-1, d] and ``width`` [2W-1, d];
    row index = key - query + size - 1.
    """

    relative = True

    def forward(
        self, q: Tensor, size: tuple[int, int], scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return the scaled biases, [B, heads, N, H] and [B, heads, N, W], of [B, heads, N, d]."""
        q = q.unflatten(2, size)
        height, width = self.tables(size, scale)
        bias_h = torch.einsum("bnyxd,ykd->bnyxk", q, height[_offsets(size[0], q.device)])
        bias_w = torch.einsum("bnyxd,xkd->bnyxk", q, width[_offsets(size[1], q.device)])
        return bias_h.flatten(2, 3), bias_w.flatten(2, 3)


class AbsolutePosition2d(_Position2d):
    """Logits q . E_h[key row] and q . E_w[key column] (table 4, last row).

    Parameters ``height`` [H, d] and ``width`` [W, d].
    """

    relative = False

    def forward(
        self, q: Tensor, size: tuple[int, int], scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return the scaled biases, [B, heads, N, H] and [B, heads, N, W], of [B, heads, N, d]."""
        height, width = self.tables(size, scale)
        return q @ height.t(), q @ width.t()


def _offsets(side: int, device: torch.device) -> Tensor:
    """Return the table row of each (query, key) pair of one axis, [side, side]."""
    axis = torch.arange(side, device=device)
    return axis[None, :] - axis[:, None] + side - 1
