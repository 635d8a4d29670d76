"""Time and memory of the attention layer, ours and others', over map sizes and dtypes."""

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
from botvision.benchmark.groups import WORK, Case, Group, measure_group
from botvision.benchmark.machine import Machine, describe_machine
from botvision.benchmark.measuring import PASSES, Prepared
from botvision.benchmark.settings import (
    check_device,
    check_dtype,
    check_known,
    check_size,
    dtype_named,
)

DEFAULT_SIZES = ("32x32", "64x64")
DEFAULT_DTYPES = ("float32",)


@dataclass(frozen=True)
class AttentionSettings:
    """What to measure.

    Attributes:
        sizes: Maps, as "64x64".
        dtypes: Of parameters and input alike; there is no autocast.
        layers: Names out of ``layer_names()``; ratios are to the first.
        batch: Maps at a time.
        heads: Attention heads.
        head_dim: Channels of a head.
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
        """Settings with the defaults filled in and every name known.

        Raises:
            BotvisionError: On an unknown size, dtype, layer or device.
        """
        sizes = [f"{h}x{w}" for h, w in map(check_size, sizes or DEFAULT_SIZES)]
        dtypes = [check_dtype(dtype) for dtype in dtypes or DEFAULT_DTYPES]
        layers = [check_known("--layer", layer, layer_names()) for layer in layers or layer_names()]
        return cls(
            sizes=list(dict.fromkeys(sizes)),
            dtypes=list(dict.fromkeys(dtypes)),
            layers=list(dict.fromkeys(layers)),
            batch=batch,
            heads=heads,
            head_dim=head_dim,
            device=check_device(device),
            seconds=seconds,
        )


@dataclass(frozen=True)
class AttentionGroup(Group):
    """Layers that took turns over one map.

    Attributes:
        height: Rows of the map.
        width: Its columns.
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
    """What ``botvision benchmark attention`` found.

    Attributes:
        machine: That it ran on.
        settings: What was asked for.
        groups: A dtype, map and pass each.
    """

    machine: Machine
    settings: AttentionSettings
    groups: list[AttentionGroup]


def benchmark_attention(
    settings: AttentionSettings, *, progress: Callable[[str], None]
) -> AttentionReport:
    """Measure attention layers of one function: projection, relative positions, softmax, values.

    For each dtype, map and pass the layers take turns with each other and with a large matrix
    product, whose rate is the peak that shares are of. On the CPU the memory is what a pass adds
    to the peak of a fresh process; on a GPU what it adds to the allocated memory.

    Args:
        settings: What to measure.
        progress: Is told what is going on.
    """
    machine = describe_machine(settings.device)
    progress("trying each layer on a small map")
    reasons = {
        (layer, dtype, pass_name): why_unavailable(_layer(settings, layer, dtype), pass_name)
        for layer, dtype, pass_name in product(settings.layers, settings.dtypes, PASSES)
    }
    groups = []
    for dtype, size, pass_name in product(settings.dtypes, settings.sizes, PASSES):
        height, width = check_size(size)
        operations = attention_operations(
            settings.batch, settings.heads, settings.head_dim, (height, width)
        )
        cases = [
            Case(
                layer,
                operations,
                prepare=partial(_layer(settings, layer, dtype), (height, width)),
                warm_up=partial(_layer(settings, layer, dtype), SMALL_SIZE),
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
            progress=partial(_say, progress, f"{size} {dtype} {pass_name}"),
        )
        groups.append(
            AttentionGroup(
                **vars(group),
                height=height,
                width=width,
                dtype=dtype,
                operations=WORK[pass_name] * operations,
            )
        )
    return AttentionReport(machine, settings, groups)


def _layer(
    settings: AttentionSettings, name: str, dtype: str
) -> Callable[[tuple[int, int]], Prepared]:
    return partial(
        prepare_layer,
        name,
        batch=settings.batch,
        heads=settings.heads,
        head_dim=settings.head_dim,
        dtype=dtype_named(dtype),
        device=settings.device,
    )


def _say(progress: Callable[[str], None], title: str, note: str) -> None:
    progress(f"{title}: {note}")
