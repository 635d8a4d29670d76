"""What a benchmark writes: its figures as JSON and as a picture."""

from dataclasses import asdict
from pathlib import Path

from botvision.benchmark.attention_benchmark import AttentionReport
from botvision.benchmark.backbone_benchmark import BackboneReport
from botvision.benchmark.pictures import attention_figure, backbone_figure
from botvision.files import replacing, write_json


def write_report(report: AttentionReport | BackboneReport, folder: Path) -> None:
    """Write ``benchmark.json`` and ``benchmark.png``, each all or nothing, over earlier ones.

    Args:
        report: What a benchmark found.
        folder: Where to; it must exist.
    """
    write_json(folder / "benchmark.json", asdict(report))
    if isinstance(report, AttentionReport):
        figure = attention_figure(report)
    else:
        figure = backbone_figure(report)
    with replacing(folder / "benchmark.png") as temporary:
        figure.savefig(temporary, dpi=120)
