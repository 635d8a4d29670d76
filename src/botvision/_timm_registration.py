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
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "timm":
            return None
        del path, target  # those of a top-level package
        # Others may only ask whether timm is there, so the finder stays until timm is executed.
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, self)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, finder: _TimmFinder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # timm must not see that it was loaded in a special way: resources, get_source ...
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        importlib.import_module("botvision.models")
