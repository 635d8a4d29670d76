"""Register the models of ``botvision.models`` with timm as soon as timm is imported."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# ``import botvision, timm`` must register the models although ``import botvision`` imports neither
# torch nor timm. timm has no entry points for models, and nothing but an import hook learns of an
# import that comes later.


def install() -> None:
    """Register the models now if timm is imported, else right after its import."""
    if "timm" in sys.modules:
        importlib.import_module("botvision.models")
    elif not any(isinstance(finder, _TimmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TimmFinder())


class _TimmFinder(MetaPathFinder):
    """Finds timm as Python would and registers the models when it has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "timm":
            return None
        del path, target  # unused for a top-level package
        # A caller may only ask whether timm exists, so the finder stays until timm is executed.
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                importlib.import_module("botvision.models")

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
