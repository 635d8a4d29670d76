"""What people point a prediction at: files, folders, patterns and lists of them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from botvision.errors import BotvisionError, nearest
from botvision.images.find import FoundImages, find_images, matching_paths

STDIN = "-"
_LISTS = (".txt", ".lst")


def find_sources(sources: Sequence[str | Path]) -> FoundImages:
    """Return the images that sources name, each once, in the order of the sources.

    Args:
        sources: Images, folders, glob patterns ("photos/**/*.jpg"), lists (files of one source per
            line, ".txt" or ".lst", with paths relative to the list or to the working folder), and
            "-" for a list on standard input.

    Raises:
        BotvisionError: If a source is missing, matches nothing, or none is given.
    """
    named = [path for source in sources for path in _named(str(source))]
    if not named:
        raise BotvisionError("source: expected an image, a folder, a pattern or a list, got none")
    found = find_images(named)
    found.paths[:] = dict.fromkeys(found.paths)
    return found


def _named(source: str) -> list[Path]:
    """Return the files and folders that a source names."""
    if source == STDIN:
        return _listed(sys.stdin.read(), "standard input", Path())
    path = Path(source)
    if source.startswith(("http://", "https://")):
        raise BotvisionError(f"{source}: expected a file; addresses are not fetched, download it")
    if path.is_file() and path.suffix.lower() in _LISTS:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise BotvisionError(
                f"{path}: expected a list of paths, one per line, in UTF-8, got other bytes"
            ) from error
        return _listed(text, str(path), path.parent)
    paths = matching_paths(source)
    if paths == [path] and not path.exists():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BotvisionError(f"{source}: no such file or folder{nearest(path.name, beside)}")
    return paths


def _listed(text: str, where: str, beside: Path) -> list[Path]:
    """Return the paths of a list, one per line; faults are reported together."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    paths, missing = [], []
    for number, line in lines:
        if not line:
            continue
        path = next((each for each in (beside / line, Path(line)) if each.exists()), None)
        if path is None:
            missing.append((number, line))
        else:
            paths.append(path)
    if missing:
        number, line = missing[0]
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise BotvisionError(f"{where}, line {number}: {line}: no such file or folder{more}")
    if not paths:
        raise BotvisionError(f"{where}: expected paths, one per line, got none")
    return paths
