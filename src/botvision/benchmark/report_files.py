"""What a benchmark writes: its figures as JSON, and as an image where there is one."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from botvision.benchmark.attention_benchmark import AttentionReport
from botvision.benchmark.backbone_benchmark import BackboneReport
from botvision.benchmark.figures import attention_figure, backbone_figure
from botvision.files import replacing, write_json


def write_report(report: Any, folder: Path) -> list[str]:
    """Write ``benchmark.json`` and perhaps ``benchmark.png``, all or nothing, over earlier ones.

    Args:
        report: What a benchmark found, a dataclass; those of layers and networks have an image.
        folder: Where to; it must exist.

    Returns:
        Names of what was written.
    """
    write_json(folder / "benchmark.json", asdict(report))
    if isinstance(report, AttentionReport):
        figure = attention_figure(report)
    elif isinstance(report, BackboneReport):
        figure = backbone_figure(report)
    else:
        return ["benchmark.json"]
    with replacing(folder / "benchmark.png") as temporary:
        figure.savefig(temporary, dpi=120)
    return ["benchmark.json", "benchmark.png"]
