"""Import supervision with its import-time warnings silenced."""

import warnings
from functools import cache
from typing import Any


@cache  # silencing warnings again for each result would cost time, and is not thread-safe
def import_supervision() -> Any:
    """Return the library; it is imported when it is first needed, as it takes a while."""
    with warnings.catch_warnings():
        # We draw with torchvision; supervision's hint to install OpenCV is not for us.
        warnings.filterwarnings("ignore", message=".*OpenCV.*")
        import supervision
    return supervision
