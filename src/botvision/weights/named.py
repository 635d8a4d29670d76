"""Networks by name: timm's registry, or a repository on the Hub and what it says of itself."""

from dataclasses import dataclass, field
from typing import Any

from botvision.models.names import HUB, is_registered, registered_name
from botvision.weights.hub import hub_config
from botvision.weights.hub_config import network_description


@dataclass(frozen=True)
class NamedNetwork:
    """A network that a name stands for.

    Attributes:
        name: Its name in timm's registry, perhaps with a tag.
        arguments: Arguments of ``create_model``, without classes and image size.
        botify: Arguments of ``botvision.botify`` that follow; None: not.
        normalization: RGB ``mean`` and ``std``, where they are not the registry's.
        weights: Address of its trained weights, where they are not timm's; None: timm's.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    botify: dict[str, Any] | None = None
    normalization: dict[str, tuple[float, ...]] = field(default_factory=dict)
    weights: str | None = None

    @property
    def architecture(self) -> str:
        """The name without its tag."""
        return self.name.partition(".")[0]


def named_network(name: str) -> NamedNetwork:
    """Return the network that a name stands for; weights are not fetched.

    Args:
        name: See ``botvision.models.names.registered_name``; or "hf-hub:owner/name", whose
            config.json is fetched.

    Raises:
        BotvisionError: If the repository cannot be read or holds no network that timm builds.
        ValueError: If the name is unknown.
    """
    if not name.startswith(HUB) or is_registered(name):
        return NamedNetwork(registered_name(name))
    path, config = hub_config(name)
    description = network_description(config, path)
    arguments = dict(description.model["classifier_arguments"])
    arguments.pop("img_size", None)  # whoever builds the network chooses its image size
    return NamedNetwork(
        registered_name(description.model["classifier"]),
        arguments,
        description.model.get("botify"),
        {"mean": description.input.mean, "std": description.input.std},
        name,
    )
