"""The benchmark of shards: its figures of a few shards."""

import json


def test_a_report(script):
    arguments = ("--shards", 6, "--rate", 50, "--latency", 0.2, "--step", 0.1, "--num-workers", 1)
    status, out, error = script("shards", *arguments, "--json")
    assert (status, error) == (0, "")
    epochs = json.loads(out)["epochs"]
    assert list(epochs) == ["fetched when needed", "prefetched", "in the cache"]
    for epoch in epochs.values():
        assert 0 < epoch["first"] <= epoch["waited"]
        assert epoch["seconds"] >= epoch["waited"] + 6 * 0.1
    # Nothing is there before the server has answered, unless it is in the cache.
    assert epochs["fetched when needed"]["first"] > 0.2
    assert epochs["prefetched"]["first"] > 0.2
