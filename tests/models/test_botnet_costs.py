"""Parameters and multiply-adds of the models against the paper and against arithmetic."""

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import botvision
from botvision.models.costs import model_costs


def on_meta(name, **kwargs):
    """The model without memory or time for its numbers."""
    with torch.device("meta"):
        return botvision.create_model(name, **kwargs)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def by_arithmetic(blocks, maps, classes=1000):
    """Parameters of a BoTNet from the paper's description alone.

    ``maps`` are the sides of the maps on which the blocks of c5 attend.
    """
    total = 3 * 64 * 7 * 7 + 2 * 64
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        outputs = 4 * width
        for block in range(count):
            if stage < 3:
                spatial = 9 * width**2
            else:
                # q, k, v projections; two tables of 2S-1 rows by head width, for 4 heads.
                spatial = 3 * width**2 + 2 * (2 * maps[block] - 1) * width // 4
            total += inputs * width + spatial + width * outputs
            total += 2 * (width + width + outputs)  # BatchNorm
            if block == 0:
                total += inputs * outputs + 2 * outputs  # shortcut
            inputs = outputs
    return total + inputs * classes + classes


@pytest.mark.parametrize(
    ("name", "blocks", "maps", "expected"),
    [
        ("botnet50", (3, 4, 6, 3), (14, 7, 7), 20_852_008),
        ("botnet50_s1", (3, 4, 6, 3), (14, 14, 14), 20_859_176),
        ("botnet101", (3, 4, 23, 3), (14, 7, 7), 39_844_136),
        ("botnet101_s1", (3, 4, 23, 3), (14, 14, 14), 39_851_304),
        ("botnet152", (3, 8, 36, 3), (14, 7, 7), 55_487_784),
        ("botnet152_s1", (3, 8, 36, 3), (14, 14, 14), 55_494_952),
        ("botnet200", (3, 24, 36, 3), (14, 7, 7), 59_968_808),
        ("botnet200_s1", (3, 24, 36, 3), (14, 14, 14), 59_975_976),
    ],
)
def test_parameters(name, blocks, maps, expected):
    assert by_arithmetic(blocks, maps) == expected
    assert parameters(on_meta(name)) == expected


def test_tables_grow_with_the_image_size_and_nothing_else_does():
    grown = parameters(on_meta("botnet50", img_size=1024))
    assert grown == by_arithmetic((3, 4, 6, 3), (64, 32, 32))


@pytest.mark.parametrize(
    ("options", "tables"),
    [({"position": "none"}, 0), ({"position": "absolute"}, 2 * (14 + 7 + 7) * 128)],
)
def test_parameters_of_other_positions(options, tables):
    relative = 2 * (27 + 13 + 13) * 128
    assert parameters(on_meta("botnet50", **options)) == 20_852_008 - relative + tables


def test_fewer_parameters_than_the_resnet():
    # Table 1: 20.8M against 25.5M.
    with torch.device("meta"):
        resnet = parameters(timm.create_model("resnet50"))
    assert resnet == 25_557_032
    assert parameters(on_meta("botnet50")) == pytest.approx(20.8e6, rel=0.003)


def multiply_adds(model, size):
    with torch.device("meta"):
        image = torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    return counter.get_total_flops() / 2


def test_multiply_adds_of_resnet50_at_1024():
    with torch.device("meta"):
        resnet = timm.create_model("resnet50")
    assert multiply_adds(resnet, 1024) == pytest.approx(85.4e9, rel=0.001)


def test_multiply_adds_of_botnet50_at_1024():
    # The counter does not know the in-place products of "chunked", hence the reference.
    model = on_meta("botnet50", img_size=1024, attention_impl="reference")
    assert multiply_adds(model, 1024) == pytest.approx(102.98e9, rel=0.01)


def test_multiply_adds_at_224():
    # 4.09G is the stride-in-3x3 ResNet-50; S1 is 5.4G and not the paper's 4.27G, which its own
    # T3 (7.3G with three more blocks) contradicts.
    small = multiply_adds(on_meta("botnet50", attention_impl="reference"), 224)
    stride_one = multiply_adds(on_meta("botnet50_s1", attention_impl="reference"), 224)
    assert small == pytest.approx(4.0e9, rel=0.03)
    assert stride_one == pytest.approx(5.4e9, rel=0.02)


@pytest.mark.parametrize(
    ("name", "by_the_text", "everywhere", "paper_parameters", "paper_multiply_adds"),
    [
        ("botnet_t3", 30_500_696, 33_659_480, 33.5e6, 7.3e9),
        ("botnet_t4", 51_739_544, 54_898_328, 54.7e6, 10.9e9),
        ("botnet_t5", 69_131_672, 75_449_240, 75.1e6, 19.3e9),
        ("botnet_t6", 47_917_400, 54_234_968, 53.9e6, 23.3e9),
        ("botnet_t7", 69_180_824, 75_498_392, 75.1e6, 45.8e9),
    ],
)
def test_t_series(name, by_the_text, everywhere, paper_parameters, paper_multiply_adds):
    assert parameters(on_meta(name)) == by_the_text
    # The paper counts squeeze-and-excitation in every block, against its own text.
    assert parameters(on_meta(name, se_everywhere=True)) == everywhere
    assert everywhere == pytest.approx(paper_parameters, rel=0.01)
    assert model_costs(name).multiply_adds == pytest.approx(paper_multiply_adds, rel=0.02)


def test_t_series_attends_without_squeeze_and_excitation():
    for everywhere in (False, True):
        model = on_meta("botnet_t3", se_everywhere=everywhere)
        assert all(block.se is not None for block in model.layer3)
        assert all((block.se is not None) == everywhere for block in model.layer4)
        assert {type(block.act3) for block in model.layer4} == {torch.nn.SiLU}
