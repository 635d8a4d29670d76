"""Writing folders so that nobody sees half of one."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from botvision.errors import BotvisionError


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that gets its name when the block ends well.

    Args:
        folder: Where to; must not exist.

    Yields:
        The empty folder to write to.

    Raises:
        BotvisionError: If the folder exists.
    """
    if folder.exists() or folder.is_symlink():
        raise BotvisionError(f"{folder}: already exists; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        # A folder in the temporary one, since mkdtemp's own is private whatever the umask.
        written = staging / folder.name
        written.mkdir()
        yield written
        written.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
