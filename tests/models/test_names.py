"""Names of networks, with and without tags, and as addresses."""

import pytest
import timm

import botvision
from botvision.models.names import is_registered, registered_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("botnet50", "botnet50"),
        ("resnet50", "resnet50"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("timm/resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("timm/botnet26t_256.c1_in1k", "botnet26t_256.c1_in1k"),
        ("hf-hub:timm/resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("timm/resnet50", "resnet50"),
    ],
)
def test_names(name, expected):
    assert registered_name(name) == expected
    assert is_registered(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet5O", r"'resnet5O' is unknown; did you mean resnet50"),
        ("timm/resnet5O", r"'timm/resnet5O' is unknown; did you mean resnet50"),
        ("timm/resnet50.a1_in", r"resnet50 has no weights 'a1_in'; did you mean resnet50\.a1_in1k"),
        ("resnet50.safetensors", "resnet50 has no weights 'safetensors'"),
        ("hf-hub:owner/name", "is unknown"),
        ("owner/resnet50", "is unknown"),
    ],
)
def test_other_names(name, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        registered_name(name)
    assert "\n" not in str(raised.value)
    assert not is_registered(name)


def test_models_are_created_by_address_without_the_network():
    model = botvision.create_model("timm/resnet18.a1_in1k", num_classes=2)
    assert model.pretrained_cfg["tag"] == "a1_in1k"
    assert type(model) is type(timm.create_model("resnet18"))
