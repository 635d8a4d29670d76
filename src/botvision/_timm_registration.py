"""Registers our models whenever timm is there, without importing timm ourselves.

``import botvision, timm; timm.create_model("botnet50")`` must work, and so must
``import botvision.attention`` without timm. Hence the models are registered right after timm's
own import, whoever asks for it.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType


def install() -> None:
    """Register the models now if timm is imported, else as soon as it is."""
    if "timm" in sys.modules:
        importlib.import_module("botvision.models")
    elif not any(isinstance(finder, _TimmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TimmFinder())


class _TimmFinder(importlib.abc.MetaPathFinder):
    """Finds timm as Python would, once, and has its loader register the models."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "timm":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        importlib.import_module("botvision.models")
