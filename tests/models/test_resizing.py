"""Models at other image sizes than that for which their position tables were made.

What holds exactly: at its own size a model interpolates nothing, whatever sizes it has seen; tables
of S rows a side stretched to S' come back at S where S - 1 divides S' - 1, for then every old row
is one of the new; and a relative table linear in the offset keeps its ends and its center.
"""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import botvision
from botvision.attention import RelativePosition2d
from botvision.attention.positions import resize_position_table


def tiny(side, **options):
    torch.manual_seed(0)
    model = botvision.create_model("botnet_tiny", img_size=side, num_classes=4, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # the last ones' zeros hide the attention
    return model


@pytest.mark.parametrize(
    ("trained", "loaded"),
    [(48, 80), (48, 144), ((48, 80), (80, 144)), (64, 64)],  # maps 3, 2 -> 5, 3; -> 9, 5; ...
    ids=str,
)
def test_a_resized_model_computes_at_the_old_size_what_it_did(trained, loaded):
    model, resized = tiny(trained), tiny(loaded)
    resized.load_state_dict(model.state_dict())
    height, width = (trained, trained) if isinstance(trained, int) else trained
    x = torch.randn(2, 3, height, width)
    assert_close(resized(x), model(x), rtol=1e-5, atol=1e-5)
    if trained != loaded:  # and the tables did count
        for parameter in (p for n, p in resized.named_parameters() if ".position." in n):
            nn.init.zeros_(parameter)
        assert not torch.allclose(resized(x), model(x), rtol=1e-3, atol=1e-3)


def test_loading_resizes_as_running_does():
    model, resized = tiny(64), tiny(112)
    resized.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 112, 112)
    assert_close(resized(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_other_sizes_leave_the_own_one_alone(position):
    model = tiny(64, position=position)
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    for side in (33, 128):
        model(torch.randn(1, 3, side, side))
    assert torch.equal(model(x), expected)
    table = model.layer4[0].conv2.attention.position.height
    assert resize_position_table(table, len(table), relative=position == "relative") is table


@pytest.mark.parametrize("loaded", [4, 6, 20])
def test_a_table_linear_in_the_offset_stays_so(loaded):
    position = RelativePosition2d(2, (7, 7))
    slope, start = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    offsets = torch.arange(-6.0, 7.0)[:, None] / 6  # of the map's extent
    position.height.data = start + offsets * slope
    other = RelativePosition2d(2, (loaded, 7))
    other.load_state_dict(position.state_dict())
    expected = start + torch.linspace(-1, 1, 2 * loaded - 1)[:, None] * slope
    assert_close(other.height.detach(), expected)
    assert torch.equal(other.width, position.width)


def test_tables_of_another_head_width_are_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        tiny(64).load_state_dict(tiny(64, num_heads=8).state_dict())
