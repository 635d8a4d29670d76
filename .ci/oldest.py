"""Print the lowest allowed version of each direct dependency, as pip's requirements."""

import re
import tomllib
from pathlib import Path

EXTRAS = ("demo", "detr", "hf", "track", "dev")

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = (each for name in EXTRAS for each in project["optional-dependencies"][name])
for requirement in dict.fromkeys([*project["dependencies"], *extras]):
    print(re.sub(r">=(\S+?)(,.*)?$", r"==\1", requirement))
