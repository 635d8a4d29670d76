"""The BoT block: a bottleneck with attention for its 3x3 convolution."""

import pytest
import torch
from timm.layers import DropPath
from timm.models.resnet import Bottleneck, downsample_conv
from torch import nn
from torch.testing import assert_close

from botvision.attention import MultiHeadSelfAttention2d
from botvision.models import BottleneckTransformer, create_model, spatial_attention


def make_block(*, stride=1, dilation=1, image_size=(96, 96), planes=8, **options):
    block_class = BottleneckTransformer.configured(image_size, **options)
    outputs = planes * 4
    downsample = downsample_conv(16, outputs, kernel_size=1, stride=stride)
    return block_class(16, planes, stride, downsample, dilation=dilation)


def test_differs_from_a_bottleneck_in_the_spatial_operation_only():
    plain = Bottleneck(16, 8, 1, downsample_conv(16, 32, kernel_size=1))
    shapes = [
        {n: tuple(p.shape) for n, p in block.state_dict().items() if "conv2" not in n}
        for block in (plain, make_block())
    ]
    assert shapes[0] == shapes[1]
    assert [type(m) for m in plain.children() if not isinstance(m, nn.Conv2d)] == [
        type(m) for m in make_block().children() if not isinstance(m, nn.Conv2d | nn.Sequential)
    ] + [nn.Sequential]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (5, 8), (1, 7), (6, 4)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_any_map_forward_and_backward(size, stride):
    block = make_block(stride=stride)
    x = torch.randn(2, 16, *size, requires_grad=True)
    out = block(x)
    # Odd sides round up, as the strided shortcut's do.
    assert out.shape == (2, 32, *(-(-side // stride) for side in size))
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is not None for p in block.parameters())


def test_attention_runs_before_the_pooling():
    # Section 3.2: the strided block attends at its input's resolution.
    layer = spatial_attention(8, 2, (4, 6))
    seen = []
    layer.attention.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    assert layer(torch.randn(1, 8, 4, 6)).shape == (1, 8, 2, 3)
    assert seen == [(1, 8, 4, 6)]


def test_pooling_is_not_what_inductor_differentiates_wrongly():
    # pytorch/pytorch issue 198119; slow tests see it in the gradients of compiled networks.
    with torch.device("meta"):
        network = create_model("botnet50")
    (pool,) = [module for module in network.modules() if isinstance(module, nn.AvgPool2d)]
    assert not (pool.ceil_mode and pool.count_include_pad)


def test_pooling_is_the_mean_of_what_is_there():
    # At an odd map's edge the window holds fewer cells; zeros beyond must not dilute the mean.
    pool = spatial_attention(4, 2, (3, 3)).pool
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert_close(pool(x), torch.tensor([[[[2.0, 3.5], [6.5, 8.0]]]]))


def test_stride_of_one_does_not_pool():
    assert isinstance(spatial_attention(8, 1, (4, 6)).pool, nn.Identity)


@pytest.mark.parametrize(
    ("stride", "dilation", "expected"), [(2, 1, (7, 5)), (1, 1, (4, 3)), (1, 2, (7, 5))]
)
def test_tables_fit_the_map_of_the_image(stride, dilation, expected):
    # 100 x 70 pixels: 7 x 5 at stride 16, 4 x 3 at stride 32, both rounded up.
    block = make_block(stride=stride, dilation=dilation, image_size=(100, 70))
    assert block.conv2.attention.position.size == expected


@pytest.mark.parametrize(("dilation", "expected"), [(1, (7, 5)), (2, (13, 9))])
def test_tables_fit_the_map_of_another_stage(dilation, expected):
    # c4: stride 16, or 8 where it is dilated.
    block = make_block(stage_stride=16, dilation=dilation, image_size=(100, 70))
    assert block.conv2.attention.position.size == expected


def test_options_reach_the_attention():
    block = make_block(num_heads=2, position="absolute", content=False, impl="reference")
    attention = block.conv2.attention
    assert (attention.num_heads, attention.content, attention.impl) == (2, False, "reference")
    assert attention.position.height.shape == (3, 4)


def test_configuring_one_network_leaves_another_alone():
    first = BottleneckTransformer.configured((64, 64), position="none")
    second = BottleneckTransformer.configured((128, 96), position="absolute")
    attention = [c(32, 8).conv2.attention for c in (first, second, BottleneckTransformer)]
    assert attention[0].position is None
    assert attention[1].position.size == (4, 3)
    assert attention[2].position.size == (7, 7)


def test_starts_as_its_shortcut():
    # The last BatchNorm's gamma starts at zero, so the block adds nothing at first.
    block = make_block().eval()
    block.zero_init_last()
    assert block.bn3.weight.abs().max() == 0
    x = torch.randn(2, 16, 6, 6)
    assert_close(block(x), block.downsample(x).relu())


def test_drop_path_skips_the_attention():
    block = BottleneckTransformer(32, 8, drop_path=DropPath(1.0 - 1e-7))
    x = torch.randn(4, 32, 7, 7)
    assert_close(block.train()(x), x.relu())


def test_holds_no_spatial_convolution():
    block = make_block(stride=2)
    assert {m.kernel_size for m in block.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert sum(isinstance(m, MultiHeadSelfAttention2d) for m in block.modules()) == 1
    assert sum(isinstance(m, nn.BatchNorm2d) for m in block.modules()) == 4  # one the shortcut's
    assert sum(isinstance(m, nn.ReLU) for m in block.modules()) == 3
