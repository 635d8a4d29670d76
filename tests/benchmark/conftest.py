"""Benchmarks of next to nothing: small maps, a small matrix product, no processes for memory."""

import json
from dataclasses import asdict

import pytest

from botvision.benchmark import measuring
from botvision.benchmark.attention_benchmark import AttentionSettings, benchmark_attention
from botvision.benchmark.backbone_benchmark import BackboneSettings, benchmark_backbones

MEMORY = 3 * 2**20


@pytest.fixture
def small(monkeypatch):
    """Makes a benchmark take no time; the memory of each case is ``MEMORY`` bytes."""
    monkeypatch.setattr(measuring, "_PRODUCT_SIDES", {"cpu": 8, "cuda": 8})
    monkeypatch.setattr(measuring, "memory_on_cpu", lambda prepare, warm_up, pass_name: MEMORY)


@pytest.fixture
def attention_report(small):
    """A function of settings that gives a report."""

    def run(progress=lambda note: None, **settings):
        tiny = {"sizes": ["4x4"], "heads": 2, "head_dim": 8, "device": "cpu", "seconds": 0.0}
        settings = AttentionSettings(**{**tiny, **settings})
        return benchmark_attention(settings, progress=progress)

    return run


@pytest.fixture
def backbone_report(small):
    """A function of settings that gives a report."""

    def run(progress=lambda note: None, **settings):
        tiny = {"models": ["botnet_tiny@64", "resnet10t@64"], "device": "cpu", "seconds": 0.0}
        settings = BackboneSettings.checked(**{**tiny, **settings})
        return benchmark_backbones(settings, progress=progress)

    return run


@pytest.fixture
def round_trip():
    """A function that gives a report as JSON and back: what a reader of the file sees."""
    return lambda report: json.loads(json.dumps(asdict(report), allow_nan=False))
