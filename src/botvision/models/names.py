"""Names of networks: timm's, with or without a tag, and their addresses on the Hub."""

import timm

from botvision.errors import nearest

HUB = "hf-hub:"
"""Prefix that marks a repository of the Hugging Face Hub, as in timm."""
_TIMM = "timm/"


def registered_name(name: str) -> str:
    """Return the name of a network in timm's registry; nothing is fetched.

    Args:
        name: Name of a model of botvision or timm, as "resnet50"; with a tag, as
            "resnet50.a1_in1k"; or as timm's address on the Hub, as "timm/resnet50.a1_in1k" or
            "hf-hub:timm/resnet50.a1_in1k".

    Raises:
        ValueError: If there is no such model or tag; the message names the nearest ones.
    """
    address = name.removeprefix(HUB)
    bare = address.removeprefix(_TIMM) if address.startswith(_TIMM) else name
    if not timm.is_model(bare):
        raise ValueError(f"model: {name!r} is unknown{nearest(bare, timm.list_models())}")
    try:
        timm.get_pretrained_cfg(bare)
    except RuntimeError as error:
        architecture, _, tag = bare.partition(".")
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        raise ValueError(
            f"model: {name!r}: {architecture} has no weights {tag!r}{nearest(bare, known)}"
        ) from error
    return bare


def is_registered(name: str) -> bool:
    """Return whether ``registered_name`` knows a name."""
    try:
        registered_name(name)
    except ValueError:
        return False
    return True
