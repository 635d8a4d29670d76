"""BoTvision: Bottleneck Transformers for vision (Srinivas et al., CVPR 2021).

Importing the package is cheap: its parts are imported when they are first used. Its models are
registered with timm when both are imported, in either order.
"""

import importlib as _importlib
from typing import TYPE_CHECKING
from typing import Any as _Any

from botvision import _timm_registration

if TYPE_CHECKING:
    from botvision.datasets.check.report import check_folder as check
    from botvision.datasets.formats.convert import convert
    from botvision.errors import BotvisionError
    from botvision.models import create_model, list_models
    from botvision.models.botify import botify
    from botvision.predict.evaluation import evaluate
    from botvision.predict.loading import load
    from botvision.recipes.running import train

__version__ = "0.1.0"
__all__ = [
    "BotvisionError",
    "botify",
    "check",
    "convert",
    "create_model",
    "evaluate",
    "list_models",
    "load",
    "train",
]

_HOMES = {
    "BotvisionError": ("botvision.errors", "BotvisionError"),
    "botify": ("botvision.models.botify", "botify"),
    "check": ("botvision.datasets.check.report", "check_folder"),
    "convert": ("botvision.datasets.formats.convert", "convert"),
    "create_model": ("botvision.models", "create_model"),
    "evaluate": ("botvision.predict.evaluation", "evaluate"),
    "list_models": ("botvision.models", "list_models"),
    "load": ("botvision.predict.loading", "load"),
    "train": ("botvision.recipes.running", "train"),
}

_timm_registration.install()


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(_importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
