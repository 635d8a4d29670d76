"""Parameters and multiply-adds of the models against the paper and against arithmetic."""

import pytest
import timm
import torch

import botvision


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


def test_parameters_with_basic_blocks():
    # c2 to c4 of ResNet-18 by hand; c5's bottlenecks take 256 channels and end in 2048.
    def basic(inputs, width):
        shortcut = inputs * width + 2 * width if inputs != width else 0
        return 9 * width * (inputs + width) + 4 * width + shortcut

    def transformer(inputs, side):
        tables = 2 * (2 * side - 1) * 128
        shortcut = inputs * 2048 + 2 * 2048 if inputs != 2048 else 0
        convolutions = inputs * 512 + 3 * 512**2 + 512 * 2048
        return convolutions + tables + 2 * (512 + 512 + 2048) + shortcut

    stem = 3 * 64 * 7 * 7 + 2 * 64
    backbone = sum(basic(*widths) for widths in ((64, 64), (64, 128), (128, 256)))
    backbone += sum(basic(width, width) for width in (64, 128, 256))
    c5 = transformer(256, 14) + transformer(2048, 7)
    assert parameters(on_meta("botnet18")) == stem + backbone + c5 + 2048 * 1000 + 1000


@pytest.mark.parametrize(
    ("name", "by_the_text", "everywhere"),
    [
        ("botnet_t3", 30_500_696, 33_659_480),
        ("botnet_t4", 51_739_544, 54_898_328),
        ("botnet_t5", 69_131_672, 75_449_240),
        ("botnet_t6", 47_917_400, 54_234_968),
        ("botnet_t7", 69_180_824, 75_498_392),
    ],
)
def test_both_readings_of_squeeze_and_excitation(name, by_the_text, everywhere):
    assert parameters(on_meta(name)) == by_the_text
    # The paper counts squeeze-and-excitation in every block, against its own text.
    assert parameters(on_meta(name, se_everywhere=True)) == everywhere


def test_t_series_attends_without_squeeze_and_excitation():
    for everywhere in (False, True):
        model = on_meta("botnet_t3", se_everywhere=everywhere)
        assert all(block.se is not None for block in model.layer3)
        assert all((block.se is not None) == everywhere for block in model.layer4)
        assert {type(block.act3) for block in model.layer4} == {torch.nn.SiLU}


def test_parameters_of_what_is_inserted():
    resnet = 25_557_032
    # Non-Local: four 1x1 convolutions between 1024 and 512 channels, and a BatchNorm.
    assert parameters(on_meta("resnet50_nl_c4")) == resnet + 4 * 1024 * 512 + 2 * 1024
    # BoT: a bottleneck of 256, and two tables of 27 rows for heads of 64 channels.
    c4 = 2 * 1024 * 256 + 3 * 256**2 + 2 * 27 * 64 + 2 * (256 + 256 + 1024)
    assert parameters(on_meta("resnet50_bot_c4")) == resnet + c4
    c5 = 2 * 2048 * 512 + 3 * 512**2 + 2 * 13 * 128 + 2 * (512 + 512 + 2048)
    assert parameters(on_meta("resnet50_bot_c4c5")) == resnet + c4 + c5


def test_the_350_layers_are_the_quoted_senet():
    # 115.2M, as Brock et al. 2021 quote. The paper's counts leave BatchNorm and the biases of
    # squeeze-and-excitation out: so counted, SENet-50 and SENet-152 have the 28.0M and 66.6M.
    def weights(name):
        named = on_meta(name).named_parameters()
        return sum(p.numel() for n, p in named if p.ndim > 1 or n == "fc.bias")

    counts = [weights(name) / 1e6 for name in ("senet_s0", "senet_s3", "senet_s5")]
    assert [round(count, 1) for count in counts] == [28.0, 66.6, 115.2]
