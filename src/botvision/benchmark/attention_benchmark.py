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
    why_unavailable,
)
from botvision.benchmark.machine import Machine, describe_machine
from botvision.benchmark.measuring import PASSES, WORK, Case, Group, measure_group
from botvision.benchmark.settings import check_device, check_known, check_size, dtype_named

DEFAULT_SIZES = ("32x32", "64x64")
DEFAULT_DTYPES = ("float32",)


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the attention benchmark.

    Attributes:
        sizes: Map sizes, as "64x64".
        dtypes: Dtypes of parameters and input; there is no autocast.
        layers: Names from ``layer_names()``; ratios are to the first.
        batch: Batch size.
        heads: Number of attention heads.
        head_dim: Channels per head.
        device: "cpu" or "cuda".
        seconds: Budget to time each map, dtype and pass.
    """

    sizes: list[str]
    dtypes: list[str]
    layers: list[str]
    batch: int
    heads: int
    head_dim: int
    device: str
    seconds: float

    @classmethod
    def checked(
        cls,
        *,
        sizes: Sequence[str] = (),
        dtypes: Sequence[str] = (),
        layers: Sequence[str] = (),
        batch: int = 1,
        heads: int = 4,
        head_dim: int = 128,
        device: str | None = None,
        seconds: float = 8.0,
    ) -> "AttentionSettings":
        """Check the settings and fill in the defaults.

        Raises:
            BotvisionError: On an unknown size, dtype, layer or device.
        """
        known = layer_names()
        sizes = [f"{h}x{w}" for h, w in map(check_size, sizes or DEFAULT_SIZES)]
        layers = [check_known("layer", layer, known) for layer in layers or known]
        for dtype in dtypes:
            dtype_named(dtype)
        return cls(
            sizes=list(dict.fromkeys(sizes)),
            dtypes=list(dict.fromkeys(dtypes or DEFAULT_DTYPES)),
            layers=list(dict.fromkeys(layers)),
            batch=batch,
            heads=heads,
            head_dim=head_dim,
            device=check_device(device),
            seconds=seconds,
        )


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
    if progress is not None:
        progress("trying each layer on a small map")
    prepare = {
        (layer, dtype): partial(
            prepare_layer,
            layer,
            batch=settings.batch,
            heads=settings.heads,
            head_dim=settings.head_dim,
            dtype=dtype_named(dtype),
            device=settings.device,
        )
        for layer, dtype in product(settings.layers, settings.dtypes)
    }
    reasons = {
        (*key, pass_name): why_unavailable(prepare[key], pass_name)
        for key, pass_name in product(prepare, PASSES)
    }
    groups = []
    for dtype, word, pass_name in product(settings.dtypes, settings.sizes, PASSES):
        size = check_size(word)
        operations = attention_operations(settings.batch, settings.heads, settings.head_dim, size)
        cases = [
            Case(
                layer,
                operations,
                prepare=partial(prepare[layer, dtype], size),
                warm_up=partial(prepare[layer, dtype], SMALL_SIZE),
                unavailable=reasons[layer, dtype, pass_name],
            )
            for layer in settings.layers
        ]
        group = measure_group(
            cases,
            pass_name,
            device=settings.device,
            dtype=dtype_named(dtype),
            seconds=settings.seconds,
            progress=progress and partial(_titled, progress, f"{word} {dtype} {pass_name}"),
        )
        work = WORK[pass_name] * operations
        groups.append(
            AttentionGroup(
                **vars(group), height=size[0], width=size[1], dtype=dtype, operations=work
            )
        )
    return AttentionReport(machine, settings, groups)


def _titled(progress: Callable[[str], None], title: str, step: str) -> None:
    progress(f"{title}: {step}")
