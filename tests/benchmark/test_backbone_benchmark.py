"""The benchmark of networks."""

import pytest
import torch

from botvision.benchmark.backbone_benchmark import (
    BackboneSettings,
    check_model,
    model_title,
    prepare_backbone,
)
from botvision.errors import BotvisionError
from botvision.models.costs import model_costs


def test_a_group_for_each_pass(backbone_report, round_trip):
    report = backbone_report(batch=2)
    assert [group.pass_name for group in report.groups] == ["forward", "forward+backward"]
    assert report.settings.models == [model_costs("botnet_tiny", 64), model_costs("resnet10t", 64)]
    for work, group in zip((1, 3), report.groups, strict=True):
        assert [each.name for each in group.results] == ["botnet_tiny@64", "resnet10t@64"]
        first = group.results[0]
        for model, result in zip(report.settings.models, group.results, strict=True):
            assert result.ratio == pytest.approx(result.seconds / first.seconds)
            assert result.memory_bytes == 3 * 2**20
            rate = work * 2 * model.multiply_adds * 2 / result.seconds
            assert result.utilization == pytest.approx(rate / group.peak_operations_per_second)
    content = round_trip(report)
    assert content["settings"]["models"][0] == vars(model_costs("botnet_tiny", 64))
    assert content["settings"]["dtype"] == "float32"
    assert content["groups"][1]["results"][0]["ratio"] == 1


def test_defaults_are_at_their_own_sizes():
    settings = BackboneSettings.checked(device="cpu")
    titles = [model_title(model) for model in settings.models]
    assert titles == ["resnet50@224", "botnet50@224", "seresnet50@224", "efficientnet_b0@224"]


def test_own_size_of_an_efficientnet():
    assert check_model("tf_efficientnet_b7") == ("tf_efficientnet_b7", None)
    assert model_costs("tf_efficientnet_b7").input_size == 600


@pytest.mark.parametrize("training", [False, True])
def test_networks_are_in_the_mode_of_their_pass(training):
    settings = BackboneSettings.checked(
        models=["botnet_tiny@64"], batch=3, dtype="bfloat16", device="cpu"
    )
    network, x = prepare_backbone(settings.models[0], settings, training=training)
    assert network.training == training
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert (x.shape, x.dtype, x.requires_grad) == ((3, 3, 64, 64), torch.bfloat16, False)


def test_an_image_that_only_the_training_refuses(backbone_report):
    # One value a channel has no variance.
    report = backbone_report(models=["resnet10t@32"])
    forward, both = (group.results[0] for group in report.groups)
    assert forward.unavailable is None
    assert both.unavailable.startswith("not available: Expected more than 1 value per channel")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ["botnet5"]}, "model: .botnet5. is unknown; did you mean botnet50"),
        ({"models": ["botnet50@"]}, "model botnet50@: expected NAME@SIDE in pixels"),
        ({"models": ["botnet50@0"]}, "model botnet50@0: expected NAME@SIDE in pixels"),
        ({"models": ["botnet50@64x64"]}, "model botnet50@64x64: expected NAME@SIDE"),
        ({"models": ["deit_tiny_patch16_224@100"]}, "takes no such image: Input height"),
        ({"dtype": "half"}, "dtype: expected one of float32, .*got half"),
    ],
    ids=str,
)
def test_mistakes(settings, message):
    with pytest.raises(BotvisionError, match=message):
        BackboneSettings.checked(**settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(backbone_report):
    for group in backbone_report(device="cuda").groups:
        for result in group.results:
            assert result.unavailable is None
            assert result.memory_bytes > 0
