"""Licenses of trained weights that allow no commercial use."""

import json
from pathlib import Path

import timm

from botvision.models.names import HUB, is_registered, registered_name
from botvision.weights.hub import CONFIG, pretrained_file

# Names that timm gives the licenses. Apple's, Meta's SEER and FAIR's are for research alone.
_RESEARCH_ONLY = ("apple-amlr", "seer-license", "fair-noncommercial-research-license")


def license_restriction(source: str | Path) -> str | None:
    """Return a note of a license that allows no commercial use; None for other licenses.

    A registered model's is timm's record of it. A file's is unknown, and so is that of a repository
    on the Hub whose config.json does not name it.

    Args:
        source: See ``botvision.weights.checkpoints.read_checkpoint``; weights from the Hub are
            fetched already.
    """
    text = source.as_posix() if isinstance(source, Path) else source
    if is_registered(text):
        config = timm.get_pretrained_cfg(registered_name(text))
        license_name = None if config is None else config.license
    elif text.startswith(HUB):
        license_name = _recorded(pretrained_file(text).with_name(CONFIG))
    else:
        return None
    name = str(license_name or "").lower()
    if name in _RESEARCH_ONLY or "nc" in name.split("-"):
        return f"license {name}, which allows no commercial use"
    return None


def _recorded(config: Path) -> object:
    content = json.loads(config.read_text(encoding="utf-8"))
    nested = content.get("pretrained_cfg") if isinstance(content, dict) else None
    return nested.get("license") if isinstance(nested, dict) else None
