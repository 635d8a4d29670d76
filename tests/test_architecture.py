"""Imports point downwards only, files stay small, and their names say what they hold."""

import ast
import graphlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "botvision"
LAYERS = (
    ("cli",),
    ("demo",),
    ("predict", "detection"),
    ("benchmark",),
    ("recipes",),
    ("training",),
    ("inspection",),
    ("tasks",),
    ("datasets",),
    ("shards",),
    ("images",),
    ("weights",),
    ("models",),
    ("attention",),
    (
        "errors",
        "files",
        "precision",
        "processes",
        "seeds",
        "supervision_import",
        "texts",
        "_timm_registration",
    ),
)
HEIGHT = {part: -depth for depth, parts in enumerate(LAYERS) for part in parts}
# Barred although the order would allow it; the other direction points upwards anyway.
STRANGERS = {("datasets", "models"), ("datasets", "weights"), ("images", "models")}
# These two name upper modules in strings, to import them when they are first needed.
LAZY = {"botvision", "botvision._timm_registration"}
SHARED_BY_TASKS = {"task", "predictor", "fields", "publish"}
VAGUE_NAMES = {"util", "utils", "misc", "core", "helper", "helpers", "common"}
LONGEST_FILE = 500
MOST_FILES = 14  # of a folder; cli has one for each command
LARGE_FOLDERS = {"botvision.cli"}


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.path.stem == "__init__" else self.name.rpartition(".")[0]

    @property
    def part(self) -> str | None:
        """The layer's member it belongs to; None for the package's own ``__init__``."""
        return part_of(self.name)


@dataclass(frozen=True)
class Import:
    module: str
    name: str | None
    line: int


def part_of(name: str) -> str | None:
    return name.split(".")[1] if "." in name else None


def read_modules(package: Path) -> dict[str, Module]:
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return modules


def imports_of(module: Module) -> Iterator[Import]:
    """Imports of our own modules, wherever in the file they stand, and by constant string."""
    for node in statements(module.tree, skip_type_checking=module.part is None):
        if isinstance(node, ast.Import):
            found = [Import(alias.name, None, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, module.package)
            found = [Import(source, alias.name, node.lineno) for alias in node.names]
        elif module.name not in LAZY and (name := imported_by_string(node)):
            found = [Import(name, None, node.lineno)]
        else:
            continue
        yield from (each for each in found if each.module.split(".")[0] == "botvision")


def statements(node: ast.AST, *, skip_type_checking: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if skip_type_checking and isinstance(child, ast.If) and is_type_checking(child.test):
            continue
        yield child
        yield from statements(child, skip_type_checking=skip_type_checking)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")
    base = base[: len(base) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def imported_by_string(node: ast.AST) -> str | None:
    match node:
        case ast.Call(
            func=ast.Name(id=called) | ast.Attribute(attr=called),
            args=[ast.Constant(value=str(name)), *_],
        ) if called in {"import_module", "__import__"}:
            return name
    return None


def target_of(found: Import, modules: dict[str, Module]) -> str:
    inner = f"{found.module}.{found.name}"
    return inner if inner in modules else found.module


def import_problems(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        part = module.part
        if part is not None and part not in HEIGHT:
            yield f"{module.name}: {part} is in no layer"
            continue
        height = HEIGHT[part] if part else min(HEIGHT.values())
        for found in imports_of(module):
            target = target_of(found, modules)
            other = part_of(target)
            where = f"{module.name}:{found.line} imports {target}"
            if other is None:
                # Its names come from every layer, so inside the package only the version is taken.
                if found.name != "__version__":
                    yield f"{where}: import names from where they live"
            elif other not in HEIGHT:
                yield f"{where}: {other} is in no layer"
            elif HEIGHT[other] > height:
                yield f"{where}: upwards"
            elif (part, other) in STRANGERS or are_two_tasks(module.name, target):
                yield f"{where}: they do not know each other"


def are_two_tasks(importer: str, imported: str) -> bool:
    """Whether two modules belong to the folders of two tasks."""
    one, other = (name.split(".")[1:3] for name in (importer, imported))
    if len(other) < 2 or {one[0], other[0]} != {"tasks"}:
        return False
    return one[1] != other[1] and not {one[1], other[1]} & SHARED_BY_TASKS


def cycle_problems(modules: dict[str, Module]) -> Iterator[str]:
    graph = {
        module.name: {target_of(found, modules) for found in imports_of(module)} - {module.name}
        for module in modules.values()
        if module.part is not None
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield "cycle: " + " -> ".join(reversed(error.args[1]))


def file_problems(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        lines = len(module.path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            yield f"{module.name}: {lines} lines, at most {LONGEST_FILE}"
        if module.path.stem == "__init__" and module.name not in LARGE_FOLDERS:
            count = sum(path.stem != "__init__" for path in module.path.parent.glob("*.py"))
            if count > MOST_FILES:
                yield f"{module.name}: {count} files, at most {MOST_FILES}"
        last = module.name.rpartition(".")[2]
        if last.strip("_") in VAGUE_NAMES:
            yield f"{module.name}: {last} does not say what it holds"


def problems(package: Path) -> list[str]:
    modules = read_modules(package)
    return [*import_problems(modules), *cycle_problems(modules), *file_problems(modules)]


def test_the_sources_keep_the_architecture() -> None:
    modules = read_modules(PACKAGE)
    assert {"botvision", "botvision.attention", "botvision.models"} <= modules.keys()
    assert problems(PACKAGE) == []


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "botvision"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


def test_a_right_tree_has_no_problems(tmp_path: Path) -> None:
    files = {
        "__init__.py": (
            "from typing import TYPE_CHECKING\n"
            "from botvision import _timm_registration\n"
            "if TYPE_CHECKING:\n    from botvision.models import create_model\n"
        ),
        "_timm_registration.py": "import importlib\nimportlib.import_module('botvision.models')\n",
        "errors.py": "",
        "models/__init__.py": "from .botnet import BoTNet\n",
        "models/botnet.py": "import timm\nfrom botvision.attention import layer\n",
        "attention/__init__.py": "",
        "attention/layer.py": "from botvision import __version__, errors\n",
        "cli/__init__.py": "def main():\n    from botvision.cli.train import train\n",
        "cli/train.py": "from botvision.models import botnet\n" + "\n" * (LONGEST_FILE - 1),
    }
    assert problems(write_tree(tmp_path, files)) == []


WRONG = {
    "upwards": ("attention/layer.py", "from botvision.models import create_model", "upwards"),
    "upwards in a function": ("models/a.py", "def f():\n    import botvision.cli.b", "upwards"),
    "upwards, relative": ("training/a.py", "from ..cli import main", "upwards"),
    "upwards, by string": ("datasets/a.py", "import_module('botvision.training')", "upwards"),
    "upwards for types": (
        "datasets/a.py",
        "if TYPE_CHECKING:\n    from botvision.training import Loop",
        "upwards",
    ),
    "upwards in the package": ("__init__.py", "from botvision.models import BoTNet", "upwards"),
    "bottom to attention": ("errors.py", "import botvision.attention", "upwards"),
    "datasets know models": (
        "datasets/a.py",
        "from botvision import models",
        "do not know each other",
    ),
    "models know datasets": ("models/a.py", "from botvision.datasets import coco", "upwards"),
    "detection knows classification": (
        "tasks/detection/a.py",
        "import botvision.tasks.classification.losses",
        "do not know each other",
    ),
    "classification knows detection": (
        "tasks/classification/a.py",
        "from botvision.tasks.detection import coco",
        "do not know each other",
    ),
    "through the package": ("datasets/a.py", "from botvision import load", "where they live"),
    "no layer": ("tools/a.py", "", "in no layer"),
    "import of no layer": ("cli/a.py", "import botvision.tools", "in no layer"),
    "vague file": ("datasets/_utils.py", "", "does not say"),
    "vague folder": ("datasets/common/__init__.py", "", "does not say"),
    "long file": ("datasets/a.py", "x = 1\n" * (LONGEST_FILE + 1), f"{LONGEST_FILE + 1} lines"),
}


@pytest.mark.parametrize(("file", "text", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_tree_has_one_problem(tmp_path: Path, file: str, text: str, expected: str) -> None:
    files = {"__init__.py": "", "models/__init__.py": "", file: text}
    found = problems(write_tree(tmp_path, files))
    assert len(found) == 1
    assert expected in found[0]


def test_a_cycle_is_found(tmp_path: Path) -> None:
    files = {
        "datasets/__init__.py": "",
        "datasets/a.py": "from botvision.datasets.b import x",
        "datasets/b.py": "def f():\n    from botvision.datasets import c",
        "datasets/c.py": "from . import a",
    }
    (found,) = problems(write_tree(tmp_path, files))
    assert found.startswith("cycle: ")
    assert {f"botvision.datasets.{name}" for name in "abc"} == set(found[7:].split(" -> "))


def test_the_library_names_no_options_of_the_command() -> None:
    option = re.compile(r"(?<![\w-])--[a-z]")
    commands = re.compile(r"^(botvision|torchrun) ")
    found = [
        f"{module.name}:{node.lineno}: {node.value}"
        for module in read_modules(PACKAGE).values()
        if module.part not in {"cli", "recipes"}
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and option.search(node.value)
        and not commands.search(node.value)
    ]
    assert found == []
