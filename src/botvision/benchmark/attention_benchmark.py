"""Time and memory of attention layers, ours and others', over map sizes and dtypes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from botvision.benchmark.attention_layers import (
    SMALL_SIZE,
    attention_operations,
    layer_names,
    prepare_layer,
)
from botvision.benchmark.machine import Machine, describe_machine
from botvision.benchmark.measuring import PASSES, WORK, Case, Group, measure_group
from botvision.benchmark.settings import check_device, check_known, check_size, dtype_named

DEFAULT_SIZES = ("32x32", "64x64")
DEFAULT_DTYPES = ("float32",)


@dataclass
class AttentionSettings:
    """Settings of the attention benchmark.

    Attributes:
        sizes: Map sizes, as "64x64"; ``DEFAULT_SIZES`` if empty.
        dtypes: Dtypes of parameters and input, without autocast; ``DEFAULT_DTYPES`` if empty.
        layers: Names from ``layer_names()``, by default all; ratios are to the first.
        batch: Batch size.
        heads: Number of attention heads.
        head_dim: Channels per head.
        device: "cpu" or "cuda"; by default a GPU if there is one.
        seconds: Budget to time each map, dtype and pass.

    Raises:
        BotvisionError: On an unknown size, dtype, layer or device.
    """

    sizes: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    layers: Sequence[str] = ()
    batch: int = 1
    heads: int = 4
    head_dim: int = 128
    device: str = ""
    seconds: float = 8.0

    def __post_init__(self) -> None:
        sizes = [f"{h}x{w}" for h, w in map(check_size, self.sizes or DEFAULT_SIZES)]
        known = layer_names()
        for dtype in self.dtypes:
            dtype_named(dtype)
        for layer in self.layers:
            check_known("layer", layer, known)
        self.sizes = list(dict.fromkeys(sizes))
        self.dtypes = list(dict.fromkeys(self.dtypes or DEFAULT_DTYPES))
        self.layers = list(dict.fromkeys(self.layers or known))
        self.device = check_device(self.device)


@dataclass(frozen=True)
class AttentionGroup(Group):
    """Layers that took turns on one map.

    Attributes:
        height: Rows of the map.
        width: Columns of the map.
        dtype: Name of the dtype.
        operations: Floating-point operations of the products in the pass, see
            ``attention_operations``; three times the forward pass's for forward+backward.
    """

    height: int
    width: int
    dtype: str
    operations: int


@dataclass(frozen=True)
class AttentionReport:
    """Result of ``botvision benchmark attention``.

    Attributes:
        machine: Machine that it ran on.
        settings: Settings of the benchmark.
        groups: One group per dtype, map and pass.
    """

    machine: Machine
    settings: AttentionSettings
    groups: list[AttentionGroup]


def benchmark_attention(
    settings: AttentionSettings, *, progress: Callable[[str], None] | None = None
) -> AttentionReport:
    """Measure attention layers of one function: projection, relative positions, softmax, values.

    For each dtype, map and pass the layers take turns with each other and with a large matrix
    product, used as the peak for the utilization. On the CPU the memory is what a pass adds to the
    peak of a new process, on a GPU what it adds to the allocated memory.

    Args:
        settings: Settings of the benchmark.
        progress: Called with the current step.
    """
    machine = describe_machine(settings.device)
    groups = []
    for dtype, word, pass_name in product(settings.dtypes, settings.sizes, PASSES):
        size = check_size(word)
        operations = attention_operations(settings.batch, settings.heads, settings.head_dim, size)
        cases = []
        for layer in settings.layers:
            prepare = partial(
                prepare_layer,
                layer,
                batch=settings.batch,
                heads=settings.heads,
                head_dim=settings.head_dim,
                dtype=dtype_named(dtype),
                device=settings.device,
            )
            cases.append(
                Case(layer, operations, partial(prepare, size), partial(prepare, SMALL_SIZE))
            )
        group = measure_group(
            cases,
            pass_name,
            device=settings.device,
            dtype=dtype_named(dtype),
            seconds=settings.seconds,
            title=f"{word} {dtype} {pass_name}: ",
            progress=progress,
        )
        height, width = size
        work = WORK[pass_name] * operations
        groups.append(
            AttentionGroup(**vars(group), height=height, width=width, dtype=dtype, operations=work)
        )
    return AttentionReport(machine, settings, groups)
