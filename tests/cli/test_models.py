"""``botvision models``: what the networks cost, beside what the paper says."""

import json
import re

import pytest

from botvision.models import list_models
from botvision.models.variants import VARIANTS


@pytest.fixture
def cheap(monkeypatch):
    """Counting replaced, where only the list matters."""
    from botvision.models import costs

    def count(name, input_size=None, **arguments):
        return costs.ModelCosts(name, 1_000_000, 2_000_000_000, input_size or 224)

    monkeypatch.setattr(costs, "model_costs", count)


def test_json(cli):
    status, out, _ = cli("models", "botnet50_s1", "--json")
    assert status == 0
    (row,) = json.loads(out)
    assert {k: row[k] for k in ("name", "parameters", "multiply_adds", "input_size")} == {
        "name": "botnet50_s1",
        "parameters": 20_859_176,
        "multiply_adds": 5_410_217_984,
        "input_size": 224,
    }
    (paper,) = row["paper"]
    assert (paper["parameters"], paper["multiply_adds"]) == (20_800_000, 4_270_000_000)
    assert paper["ours"] == {"parameters": 20_859_176, "multiply_adds": 5_410_217_984}
    assert "cannot be" in paper["contradiction"]


def test_table_has_the_papers_figures_beside_ours(cli):
    status, out, _ = cli("models", "botnet50")
    assert status == 0
    assert re.search(r"botnet50 +224 +20\.85M +4\.02G +20\.8M +3\.79G +1 *\n", out)
    assert re.search(r"\n +1024 +20\.90M +102\.66G +20\.8M +102\.98G +\n", out)
    assert "1: The paper's multiply-adds at 224 are those of" in out


def test_both_readings_of_squeeze_and_excitation(cli):
    _, out, _ = cli("models", "botnet_t3")
    assert re.search(r"botnet_t3 +224 +30\.50M +7\.23G +\n", out)
    assert re.search(r"\n +se_everywhere +224 +33\.66M +7\.24G +33\.5M +7\.3G +\n", out)


def test_figures_of_others_name_them(cli, cheap):
    _, out, _ = cli("models", "senet*")
    assert re.search(r"senet_s0 .* 28\.0M +4\.09G +1 *\n", out)
    assert "1: From Brock et al. 2021" in out
    assert "2: From Li et al. 2021" in out


def test_all_are_listed_in_the_papers_order(cli, cheap):
    names = [variant.name for variant in VARIANTS]
    _, out, _ = cli("models", "--json")
    assert [row["name"] for row in json.loads(out)] == names
    _, out, _ = cli("models")
    assert [n for n in re.findall(r"^ +(\w+) ", out, re.MULTILINE) if n in names] == names
    assert "…" not in out  # nothing is cut short at 80 columns
    assert sorted(names) == list_models()


@pytest.mark.slow
def test_all_are_counted(cli):
    _, out, _ = cli("models", "--json")
    for row in json.loads(out):
        assert row["parameters"] > 1e6
        assert row["multiply_adds"] > 1e8
        for paper in row["paper"]:
            assert paper["ours"]["parameters"] > 0.99 * (paper["parameters"] or 0)


def test_pattern(cli, cheap):
    _, out, _ = cli("models", "botnet_t?", "--json")
    assert [row["name"] for row in json.loads(out)] == [f"botnet_t{n}" for n in range(3, 8)]


def test_unknown_name_names_the_nearest(cli):
    status, out, error = cli("models", "botnet5O")
    assert (status, out) == (2, "")
    assert error == (
        "error: botnet5O: no such network of ours; "
        "did you mean botnet50 or botnet_t5 or botnet152?\n"
    )
    assert cli("models", "vgg*")[0] == 2
