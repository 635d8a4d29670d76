"""``botvision benchmark`` as a user runs it."""

import json
import re

import pytest
from rich.console import Console

from botvision.benchmark import measuring
from botvision.benchmark.attention_benchmark import (
    AttentionGroup,
    AttentionReport,
    AttentionSettings,
)
from botvision.benchmark.backbone_benchmark import BackboneReport, BackboneSettings
from botvision.benchmark.machine import describe_machine
from botvision.benchmark.measuring import Group, Measured
from botvision.cli.benchmark_tables import attention_table, backbone_table
from botvision.models.costs import ModelCosts

ATTENTION = ["benchmark", "attention", "--size", "4x4", "--heads", 2, "--head-dim", 8]
ATTENTION += ["--seconds", 0, "--device", "cpu"]
BACKBONE = ["benchmark", "backbone", "--model", "botnet_tiny@64", "--seconds", 0]
BACKBONE += ["--device", "cpu"]


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "_PRODUCT_SIDES", {"cpu": 8})


@pytest.fixture
def no_processes(monkeypatch):
    monkeypatch.setattr(measuring, "memory_on_cpu", lambda *_: 5 * 2**20)


def plain(text):
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


def test_attention(cli, no_processes, tmp_path):
    status, out, error = cli(*ATTENTION)
    assert (status, error) == (0, "")
    assert "4x4 float32 forward+backward" in out
    assert re.search(r"botvision auto .* 1\.00 .* 5 ", out)
    assert re.search(r"bottleneck-transformer-pytorch +\d", out)
    assert "interleaved rounds" in out
    folder = tmp_path / "runs" / "benchmark" / "attention"
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((folder / "benchmark.json").read_text())["groups"]) == 2


def test_json_is_alone_on_stdout(cli, tmp_path):
    # With the processes that measure memory, unlike the rest.
    status, out, _ = cli(*BACKBONE, "--json", "--output", "here")
    assert status == 0
    content = json.loads(out)
    assert content == json.loads((tmp_path / "here" / "benchmark.json").read_text())
    forward, both = (group["results"][0] for group in content["groups"])
    assert 0 < forward["memory_bytes"] < both["memory_bytes"] < 2**30
    assert forward["unavailable"] is both["unavailable"] is None


def test_backbone(cli, no_processes):
    status, out, error = cli(*BACKBONE, "--model", "resnet10t@32")
    assert (status, error) == (0, "")
    assert re.search(r"botnet_tiny@64 +3\.\d\d +0\.\d\d .* 1\.00 ", out)
    assert re.search(r"resnet10t@32 +5\.\d\d +0\.\d\d +- +- +- +- +-", out)
    missing = "resnet10t@32: not available: Expected more than 1 value per channel when training"
    assert missing in plain(out)
    assert "(forward+backward)" in plain(out)
    assert "benchmark.png are in runs/benchmark/backbone" in plain(out)


@pytest.fixture
def printed():
    """A function that prints a table on a terminal of 80 columns; none of them is cut short."""

    def show(table):
        console = Console(width=80, record=True)
        console.print(table)
        text = console.export_text()
        assert "…" not in text
        return " ".join(text.split())

    return show


MEASURED = {"spread": 0.1, "ratio": 123.456, "utilization": 0.755, "memory_bytes": 12345 * 2**20}


def test_attention_table(printed):
    missing = "not available: impl 'flex': [CUDA] only"
    results = [
        Measured("bottleneck-transformer-pytorch", seconds=12.3456, **MEASURED),
        Measured("auto", seconds=12.3456e-6, spread=0.0),
        Measured("flex", unavailable=missing),
        Measured("timm", unavailable="out of memory"),
    ]
    fast = Measured("timm", seconds=1.0, spread=0.0)
    group = {"height": 96, "width": 96, "dtype": "bfloat16", "operations": 1}
    report = AttentionReport(
        describe_machine("cpu"),
        AttentionSettings(device="cpu"),
        [
            AttentionGroup("forward", 31, None, [*results[:3], fast], **group),
            AttentionGroup("forward+backward", 3, None, results, **group),
        ],
    )
    text = printed(attention_table(report))
    assert "bottleneck-transformer-pytorch 12346 10% 123.46 76% 12345" in text
    assert "botvision flex - - - - -" in text
    assert "median of 3 to 31 interleaved rounds" in text
    assert text.count(missing) == 1
    assert "timm BottleneckAttn: out of memory (96x96 bfloat16 forward+backward)" in text


def test_backbone_table(printed):
    models = [ModelCosts("tf_efficientnet_b7", 66_350_000, 38_330_000_000, 600)]
    result = Measured("tf_efficientnet_b7@600", seconds=12.3456, **MEASURED)
    report = BackboneReport(
        describe_machine("cpu"),
        BackboneSettings(models, "float32", 128, "cpu", 8.0),
        [Group("forward", 3, None, [result])],
    )
    expected = "tf_efficientnet_b7@600 66.35 38.33 12346 10% 123.46 76% 12345"
    assert expected in printed(backbone_table(report))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["attention", "--size", "64"], "size: expected HEIGHTxWIDTH"),
        (["attention", "--layer", "chunkd"], "did you mean chunked?"),
        (["attention", "--dtype", "float"], "dtype: expected one of float32"),
        (["attention", "--device", "gpu"], "device: expected one of cpu, cuda"),
        (["backbone", "--model", "botnet5"], "did you mean botnet50"),
        (["backbone", "--model", "botnet50@big"], "expected NAME@SIDE"),
        (["backbone", "--dtype", "int8"], "dtype: expected one of float32"),
        (["backbone", "--output", "taken"], "taken: File exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_before_anything_is_measured(
    arguments, expected, cli, tmp_path, tree, monkeypatch
):
    def measured(*_, **__):
        raise AssertionError

    monkeypatch.setattr("botvision.benchmark.attention_benchmark.measure_group", measured)
    monkeypatch.setattr("botvision.benchmark.backbone_benchmark.measure_group", measured)
    (tmp_path / "taken").write_text("a file")
    before = tree(tmp_path)
    status, out, error = cli("benchmark", *arguments)
    assert (status, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert tree(tmp_path) == before
