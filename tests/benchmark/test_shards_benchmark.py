"""The benchmark of shards: its figures of a few shards."""

import json


def test_a_report(cli, tmp_path):
    arguments = ("benchmark", "shards", "--shards", 6, "--rate", 50, "--latency", 0.2)
    arguments += ("--step", 0.1, "--num-workers", 1, "--output", tmp_path)
    status, out, error = cli(*arguments, "--json")
    assert (status, error) == (0, "")
    report = json.loads(out)
    assert report == json.loads((tmp_path / "benchmark.json").read_text())
    assert report["settings"]["shards"] == 6
    asked, ahead, cached = report["epochs"]
    for epoch in (asked, ahead, cached):
        assert 0 < epoch["first"] <= epoch["waited"]
        assert epoch["seconds"] >= epoch["waited"] + 6 * 0.1
    # Nothing is there before the server has answered, unless it is in the cache.
    assert asked["first"] > 0.2
    assert ahead["first"] > 0.2
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark.json"]
    assert cached["name"] == "in the cache"


def test_the_table(cli, tmp_path):
    arguments = ("--shards", 2, "--rate", 100, "--latency", 0, "--step", 0, "--num-workers", 0)
    status, out, _ = cli("benchmark", "shards", *arguments, "--output", tmp_path)
    assert status == 0
    assert "fetched ahead" in out
    assert "benchmark.json is in" in out
