"""What a benchmark leaves behind."""

import json

import pytest
from PIL import Image

from botvision.benchmark.machine import _cpu_model, describe_machine
from botvision.benchmark.plots import write_report


def colors(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 400
        return {color for count, color in image.convert("RGB").getcolors(2**24) if count > 100}


@pytest.mark.parametrize(
    ("layers", "sizes"), [(["timm"], ["4x4"]), ([], ["4x4", "2x8", "2x3"])], ids=["one", "all"]
)
def test_attention(layers, sizes, attention_report, round_trip, tmp_path):
    report = attention_report(layers=layers, sizes=sizes)
    for _ in range(2):  # the second time over the first
        write_report(report, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == round_trip(report)
    assert len(colors(tmp_path / "benchmark.png")) > 4
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json", "benchmark.png"}


def test_backbones(backbone_report, round_trip, tmp_path):
    # The second network has no compute time.
    report = backbone_report(models=["botnet_tiny@64", "resnet10t@32"])
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == round_trip(report)
    assert len(colors(tmp_path / "benchmark.png")) > 4


def test_nothing_could_be_measured(backbone_report, attention_report, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr("botvision.benchmark.measuring.memory_on_cpu", fail)
    for report in (backbone_report(), attention_report(sizes=["4x4", "4x8"])):
        write_report(report, tmp_path)
        colors(tmp_path / "benchmark.png")


def test_machine():
    machine = describe_machine("cpu")
    assert machine.cpu
    assert machine.threads >= 1
    assert machine.cores >= 1
    assert machine.load_before >= 0
    assert (machine.gpu, machine.cuda) == (None, None)
    assert machine.cpu in machine.title()


def test_cpu_model(tmp_path):
    listing = tmp_path / "cpuinfo"
    listing.write_text("processor\t: 0\nmodel name\t: A Processor @ 3 GHz\nflags\t: avx\n")
    assert _cpu_model(listing) == "A Processor @ 3 GHz"
    assert _cpu_model(tmp_path / "none")
