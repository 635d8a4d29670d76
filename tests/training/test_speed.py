"""The trace of a few steps."""

import json


def names(path):
    return {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}


def test_trace_holds_three_steps(regress):
    _, run = regress(epochs=8, profile=True)
    found = names(run.path / "profile.json")
    assert {f"ProfilerStep#{step}" for step in (3, 4, 5)} <= found  # counted from 0
    assert not found & {f"ProfilerStep#{step}" for step in (2, 6, 7)}
    assert "aten::addmm" in found


def test_run_of_five_steps_has_a_trace_too(regress):
    _, run = regress(epochs=5, profile=True)
    assert "aten::addmm" in names(run.path / "profile.json")


def test_no_trace_unless_it_is_wanted(regress):
    _, run = regress(epochs=8)
    assert not (run.path / "profile.json").exists()
