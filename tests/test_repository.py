"""The files beside the sources agree with them and with each other."""

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import botvision

ROOT = Path(__file__).parent.parent
# A local version such as 2.0+cpu exists on an index of its own only, so a plus is no pin.
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!]+)")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def pins() -> dict[str, str]:
    matches = [match for line in constraints() if (match := PIN.fullmatch(line))]
    return {canonicalize_name(match[1]): match[2] for match in matches}


def requirements() -> list[str]:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    build = pyproject()["build-system"]["requires"]
    return sorted({*project["dependencies"], *extras["demo"], *extras["dev"], *build})


def test_constraints_are_pins_alone() -> None:
    assert [line for line in constraints() if not PIN.fullmatch(line)] == []
    assert len(pins()) == len(constraints()), "a package is pinned twice"


def test_constraints_name_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"://|--?(extra-)?index|--find-links|--hash|file:|www\.", text)


@pytest.mark.parametrize("requirement", requirements())
def test_every_dependency_is_pinned(requirement: str) -> None:
    wanted = Requirement(requirement)
    pin = pins().get(canonicalize_name(wanted.name))
    assert pin is not None, f"{wanted.name} is not in constraints.txt"
    assert wanted.specifier.contains(pin, prereleases=True)


def test_every_dependency_has_its_reason_in_the_changelog() -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *(each for extra in extras for each in extra)]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    missing = {Requirement(each).name for each in declared} - set(
        re.findall(r"`(\S+?)`", changelog)
    )
    assert missing == set()


def test_the_package_says_it_is_typed() -> None:
    assert (resources.files("botvision") / "py.typed").is_file()


def test_versions_agree() -> None:
    project = pyproject()
    assert project["project"]["dynamic"] == ["version"]
    source = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE) == [botvision.__version__]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == botvision.__version__
    assert botvision.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_license_is_the_one_declared() -> None:
    assert pyproject()["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
