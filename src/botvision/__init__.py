"""BoTvision: Bottleneck Transformers for visual recognition (Srinivas et al., CVPR 2021).

Importing the package is cheap: its parts are imported when they are first used. Its models are
registered with timm when both are imported, in either order.
"""

import importlib
from typing import TYPE_CHECKING, Any

from botvision import _timm_registration

if TYPE_CHECKING:
    from botvision.models import create_model, list_models
    from botvision.models.botify import botify
    from botvision.predict import load

__version__ = "0.1.0"
__all__ = ["botify", "create_model", "list_models", "load"]

_HOMES = {
    "botify": "botvision.models.botify",
    "create_model": "botvision.models",
    "list_models": "botvision.models",
    "load": "botvision.predict",
}

_timm_registration.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
