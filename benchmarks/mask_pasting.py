"""Time and memory of mask pasting, by window against on a grid of the whole image.

From the repository root:

    python benchmarks/mask_pasting.py --size 1000x1000 --masks 100
"""

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from botvision.benchmark.measuring import Timing, take_turns
from botvision.processes import call_in_new_process, peak_memory
from botvision.tasks.detection.detectors.masks import compact_masks

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/tasks/detection/detectors"))
from test_masks import specification  # type: ignore[import-not-found]

Inputs = tuple[Tensor, Tensor, tuple[int, int]]


def inputs(masks: int, size: tuple[int, int]) -> Inputs:
    """Smooth masks in boxes of 20 pixels to half the shorter side, evenly over the logarithm."""
    torch.manual_seed(0)
    height, width = size
    centers = torch.rand(masks, 2) * torch.tensor([width, height])
    sides = 20 * torch.exp(torch.rand(masks, 2) * math.log(min(size) / 40))
    corners = torch.cat((centers - sides / 2, centers + sides / 2), dim=1)
    boxes = corners.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    return F.interpolate(torch.rand(masks, 1, 7, 7), 28, mode="bilinear"), boxes, size


def dense(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Binary masks [n, H, W] by the specification."""
    return specification(masks, boxes, size)[:, 0] >= 0.5


def added_memory(paste: Callable[..., Any], given: Inputs) -> int:
    """Return the bytes that pasting adds to the peak memory of this process."""
    paste(*inputs(1, (50, 50)))  # to load what the first call of all loads
    before = peak_memory()
    kept = paste(*given)
    added = peak_memory() - before
    del kept
    return added


def main() -> None:
    """Print one line per way of pasting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1000x1000", help="height and width in pixels")
    parser.add_argument("--masks", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    height, width = map(int, arguments.size.split("x"))
    given = inputs(arguments.masks, (height, width))
    cases = {"grid of the image": dense, "windows": compact_masks}
    memory = {
        name: call_in_new_process(added_memory, paste, given) for name, paste in cases.items()
    }
    timings = take_turns(
        {name: partial(paste, *given) for name, paste in cases.items()}, seconds=20
    )
    for name, timing in timings.items():
        time = f"{1000 * timing.seconds:.0f} ms" if isinstance(timing, Timing) else timing
        print(f"{name}: {time}, {memory[name] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
