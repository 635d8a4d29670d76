"""Time and memory of our attention layer beside two peers, on the CPU, in one run.

Four layers that compute the same function (projection to q, k and v, relative positions, softmax,
values; 4 heads of 128, batch 1, float32) take turns, so that a busy machine is busy for all of
them. Prints, for the forward pass and for forward and backward, the median time, its ratio to our
``chunked``, and the peak memory the pass adds. Times mean little unless the machine was idle
before: two threads that share their cores wait for each other.

    make bench
"""

# torch and the layers are imported inside the functions: on Linux a process starts with its
# parent's peak memory as its own, so the parent must be small while the children measure.

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from torch import Tensor, nn

HEADS, HEAD_DIM = 4, 128
PASSES = ("fwd", "fwd+bwd")
OURS = "chunked (ours)"


def _botvision(impl: str) -> Callable[[int], "nn.Module"]:
    def build(side: int) -> "nn.Module":
        from botvision.attention import MultiHeadSelfAttention2d

        dim = HEADS * HEAD_DIM
        return MultiHeadSelfAttention2d(dim, HEADS, position_size=(side, side), impl=impl)

    return build


def _lucidrains(side: int) -> "nn.Module":
    from bottleneck_transformer_pytorch.bottleneck_transformer_pytorch import Attention

    dim = HEADS * HEAD_DIM
    return Attention(
        dim=dim, fmap_size=(side, side), heads=HEADS, dim_head=HEAD_DIM, rel_pos_emb=True
    )


def _timm(side: int) -> "nn.Module":
    from timm.layers.bottleneck_attn import BottleneckAttn

    dim = HEADS * HEAD_DIM
    return BottleneckAttn(dim, feat_size=(side, side), num_heads=HEADS, scale_pos_embed=True)


LAYERS: dict[str, Callable[[int], "nn.Module"]] = {
    OURS: _botvision("chunked"),
    "reference (ours)": _botvision("reference"),
    "bottleneck-transformer-pytorch": _lucidrains,
    "timm BottleneckAttn": _timm,
}


def _prepare(name: str, side: int) -> tuple["nn.Module", "Tensor"]:
    import torch

    torch.manual_seed(0)
    return LAYERS[name](side), torch.randn(1, HEADS * HEAD_DIM, side, side)


def _run(layer: "nn.Module", x: "Tensor", which: str) -> None:
    import torch

    if which == "fwd":
        with torch.no_grad():
            layer(x)
    else:
        layer.zero_grad(set_to_none=True)
        layer(x.requires_grad_()).sum().backward()
        x.grad = None


def _seconds(layer: "nn.Module", x: "Tensor", which: str) -> float:
    start = time.perf_counter()
    _run(layer, x, which)
    return time.perf_counter() - start


def time_layers(side: int, which: str, budget: float) -> tuple[dict[str, float], int]:
    """Median seconds of each layer over a map of ``side`` x ``side``, the layers taking turns.

    A first, uncounted round warms up and says how many rounds fit the budget; at least 3 are run.

    Returns:
        Seconds by layer, and the number of rounds.
    """
    cases = {name: _prepare(name, side) for name in LAYERS}
    first = sum(_seconds(layer, x, which) for layer, x in cases.values())
    rounds = max(3, min(50, int(budget / first)))
    times: dict[str, list[float]] = {name: [] for name in LAYERS}
    for _ in range(rounds):
        for name, (layer, x) in cases.items():
            times[name].append(_seconds(layer, x, which))
    return {name: statistics.median(values) for name, values in times.items()}, rounds


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _added_memory(name: str, side: int, connection: Any) -> None:
    """Send the bytes each pass adds to the peak; the passes run from the smaller to the larger."""
    small = _prepare(name, 4)
    for which in PASSES:
        _run(*small, which)  # what the first call of all loads is not the layer's
    layer, x = _prepare(name, side)
    before = _peak_bytes()
    added = {}
    for which in PASSES:
        _run(layer, x, which)
        added[which] = _peak_bytes() - before
    connection.send(added)


def memory_of_layers(side: int) -> dict[str, dict[str, int]]:
    """Bytes that a pass adds to the peak memory of a fresh process, by layer and pass."""
    context = multiprocessing.get_context("spawn")
    results = {}
    for name in LAYERS:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_added_memory, args=(name, side, sender))
        process.start()
        sender.close()
        results[name] = receiver.recv()
        process.join()
    return results


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description="Time and memory of attention layers on the CPU.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64], help="sides of the maps")
    parser.add_argument("--seconds", type=float, default=8.0, help="to time one map and pass")
    arguments = parser.parse_args()
    start = time.perf_counter()
    load = os.getloadavg()[0]
    console = Console()
    with console.status("memory"):
        memory = {side: memory_of_layers(side) for side in arguments.sizes}

    import torch

    table = Table(
        title=f"{HEADS} heads of {HEAD_DIM}, batch 1, float32, "
        f"{torch.get_num_threads()} threads, load {load:.1f} before"
    )
    for column in ("map", "pass", "layer"):
        table.add_column(column, no_wrap=True)
    for column in ("ms", "ratio", "+MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    runs = []
    for side in arguments.sizes:
        for which in PASSES:
            with console.status(f"{side}x{side}, {which}"):
                medians, rounds = time_layers(side, which, arguments.seconds)
            runs.append(rounds)
            for name, seconds in medians.items():
                table.add_row(
                    f"{side}x{side}",
                    which,
                    name,
                    f"{1e3 * seconds:.1f}",
                    f"{seconds / medians[OURS]:.2f}",
                    f"{memory[side][name][which] / 2**20:.0f}",
                )
        table.add_section()
    table.caption = (
        f"ms: median of {', '.join(map(str, runs))} interleaved runs. ratio: to {OURS}. "
        "+MiB: what the pass adds to the peak memory of a fresh process. "
        f"torch {torch.__version__}."
    )
    console.print(table)
    console.print(f"Took {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
