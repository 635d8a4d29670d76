"""supervision, whose types results are of, without what it says when it is imported."""

import warnings
from typing import Any


def import_supervision() -> Any:
    """The library; it is imported when it is first needed, as it takes a while."""
    with warnings.catch_warnings():
        # We draw with torchvision; supervision's hint to install OpenCV is not for us.
        warnings.filterwarnings("ignore", message=".*OpenCV.*")
        import supervision
    return supervision
