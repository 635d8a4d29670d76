"""The benchmark of the attention layer."""

import sys

import pytest
import torch

from botvision.attention import IMPLEMENTATIONS
from botvision.benchmark.attention_benchmark import AttentionSettings
from botvision.benchmark.attention_layers import PEERS, attention_operations, layer_names
from botvision.benchmark.measuring import PASSES
from botvision.errors import BotvisionError


def test_a_group_for_each_dtype_map_and_pass(attention_report, round_trip):
    notes = []
    report = attention_report(
        notes.append,
        sizes=["4x4", "2x3"],
        dtypes=["float32", "bfloat16"],
        layers=["chunked", "reference"],
    )
    cases = [(g.dtype, g.height, g.width, g.pass_name) for g in report.groups]
    assert cases == [
        (dtype, *size, pass_name)
        for dtype in ("float32", "bfloat16")
        for size in ((4, 4), (2, 3))
        for pass_name in PASSES
    ]
    for group in report.groups:
        forward = attention_operations(1, 2, 8, (group.height, group.width))
        assert group.operations == forward * (1 if group.pass_name == "forward" else 3)
        assert group.peak_operations_per_second > 0
        assert group.rounds == 3
        assert [result.name for result in group.results] == ["chunked", "reference"]
        baseline = group.results[0]
        assert baseline.ratio == 1
        for result in group.results:
            assert result.unavailable is None
            assert result.memory_bytes == 3 * 2**20
            assert result.ratio == pytest.approx(result.seconds / baseline.seconds)
            rate = group.operations / result.seconds
            assert result.utilization == pytest.approx(rate / group.peak_operations_per_second)
    assert "4x4 float32 forward: memory of chunked" in notes
    assert "2x3 bfloat16 forward+backward: time of chunked, reference" in notes
    content = round_trip(report)
    assert content["settings"]["sizes"] == ["4x4", "2x3"]
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert content["groups"][0]["results"][1]["seconds"] == report.groups[0].results[1].seconds


def test_defaults():
    settings = AttentionSettings(device="cpu")
    assert settings.sizes == ["32x32", "64x64"]
    assert settings.dtypes == ["float32"]
    assert settings.layers == layer_names()
    assert (settings.batch, settings.heads, settings.head_dim) == (1, 4, 128)


def test_named_twice_is_measured_once():
    settings = AttentionSettings(sizes=["4x4", "4x4"], layers=["timm", "timm"])
    assert (settings.sizes, settings.layers) == (["4x4"], ["timm"])


def test_what_is_unavailable_is_listed(attention_report, round_trip, monkeypatch):
    def gpu_only(*_, **__):
        raise ValueError("impl 'gpu': expected a CUDA device")

    monkeypatch.setitem(IMPLEMENTATIONS, "gpu", gpu_only)
    for package in [name for name in sys.modules if name.startswith("bottleneck_transformer")]:
        monkeypatch.delitem(sys.modules, package)
    monkeypatch.setitem(sys.modules, "bottleneck_transformer_pytorch", None)
    report = attention_report(layers=["auto", "gpu", *PEERS])
    for group in round_trip(report)["groups"]:
        reasons = {result["name"]: result["unavailable"] for result in group["results"]}
        assert reasons == {
            "auto": None,
            "gpu": "not available: impl 'gpu': expected a CUDA device",
            "bottleneck-transformer-pytorch": "not installed",
            "timm": None,
            "sdpa-mask": None,
        }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": ["64"]}, "size: expected HEIGHTxWIDTH in cells, as 64x64, got 64"),
        ({"sizes": ["4x4", "0x4"]}, "size: .* got 0x4"),
        ({"sizes": ["4x4x4"]}, "size: .* got 4x4x4"),
        ({"dtypes": ["float23"]}, "dtype: expected one of float32, .*got float23; .*mean float32"),
        ({"layers": ["chunkd"]}, "layer: expected one of auto, .*got chunkd; .*mean chunked?"),
        ({"device": "tpu"}, "device: expected one of cpu, cuda, got tpu"),
    ],
    ids=str,
)
def test_mistakes(settings, message):
    with pytest.raises(BotvisionError, match=message):
        AttentionSettings(**settings)


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert AttentionSettings().device == "cpu"
    with pytest.raises(BotvisionError, match="device: torch finds no CUDA device"):
        AttentionSettings(device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(attention_report):
    report = attention_report(device="cuda", dtypes=["bfloat16"], head_dim=16)
    assert report.machine.gpu == torch.cuda.get_device_name()
    for group in report.groups:
        for result in group.results:
            assert result.unavailable is not None or result.memory_bytes > 0
        assert group.results[0].unavailable is None
