"""What timm's own training functions ask of a network."""

import copy

import pytest
import timm
import torch
from timm.models import checkpoint_seq, group_parameters
from timm.optim import create_optimizer_v2

import botvision
from botvision.models import list_models

WITH_TABLES = ["botnet_tiny", "botnet50", "botnet_t3", "resnet50_bot_c4c5"]


@pytest.mark.parametrize("name", WITH_TABLES)
def test_position_tables_are_not_decayed(name):
    with torch.device("meta"):
        network = timm.create_model(name)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed = {
        names[id(parameter)]
        for group in optimizer.param_groups
        if group["weight_decay"]
        for parameter in group["params"]
    }
    tables = {name for name in names.values() if ".position." in name}
    assert tables
    assert network.no_weight_decay() == tables
    assert not tables & decayed
    assert any(name.endswith("qkv.weight") for name in decayed)


def test_a_network_without_tables_has_none_to_spare():
    with torch.device("meta"):
        assert timm.create_model("resnet50_nl_c4").no_weight_decay() == set()


@pytest.mark.parametrize("name", list_models())
def test_layer_decay_reaches_every_parameter(name):
    with torch.device("meta"):
        network = timm.create_model(name)
    groups = group_parameters(network, network.group_matcher(coarse=False))
    grouped = [parameter for names in groups.values() for parameter in names]
    assert sorted(grouped) == sorted(dict(network.named_parameters()))
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.1, layer_decay=0.5)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert min(scales) < 0.5
    assert max(scales) == 1


def test_a_converted_network_keeps_its_tables_from_decay():
    network = copy.deepcopy(botvision.botify(timm.create_model("resnet26")))
    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05)
    tables = {id(p) for name, p in network.named_parameters() if ".position." in name}
    assert tables
    assert not any(
        group["weight_decay"] and tables & {id(p) for p in group["params"]}
        for group in optimizer.param_groups
    )


def test_checkpointing_a_sequence():
    network = timm.create_model("botnet_tiny").eval()
    x = torch.randn(1, 3, 64, 64)
    stem = network.maxpool(network.act1(network.bn1(network.conv1(x))))
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    assert torch.equal(checkpoint_seq(stages, stem), network.forward_features(x))
