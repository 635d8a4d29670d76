"""distribuuuu's BoTNet-50 as ours: an oracle that is laid out as its weights, and equal outputs."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

import botvision
from botvision.detection import faster_rcnn
from botvision.errors import BotvisionError
from botvision.tasks.detection.build import load_backbone_weights as load_detector_backbone
from botvision.tasks.publish import save_pretrained
from botvision.weights.backbone import load_backbone_weights
from botvision.weights.checkpoints import read_checkpoint
from botvision.weights.distribuuuu import from_distribuuuu
from botvision.weights.hub import from_pretrained


class Attention(nn.Module):
    """Written from the definition: one query and one key at a time share an offset."""

    def __init__(self, dim, side, heads, width):
        super().__init__()
        self.heads, self.width, self.side = heads, width, side
        self.to_qk = nn.Conv2d(dim, 2 * heads * width, 1, bias=False)
        self.to_v = nn.Conv2d(dim, heads * width, 1, bias=False)
        self.pos_emb = nn.Module()
        self.pos_emb.rel_height = nn.Parameter(torch.randn(2 * side - 1, width))
        self.pos_emb.rel_width = nn.Parameter(torch.randn(2 * side - 1, width))

    def forward(self, x):
        side = self.side
        q, k, v = (
            each.unflatten(1, (self.heads, self.width)).flatten(3).transpose(2, 3)
            for each in (*self.to_qk(x).chunk(2, dim=1), self.to_v(x))
        )
        q = q * self.width**-0.5
        logits = q @ k.transpose(2, 3)
        cells = [(row, column) for row in range(side) for column in range(side)]
        for index, (row, column) in enumerate(cells):
            tables = torch.stack(
                [
                    self.pos_emb.rel_height[key_row - row + side - 1]
                    + self.pos_emb.rel_width[key_column - column + side - 1]
                    for key_row, key_column in cells
                ]
            )
            logits[:, :, index] = logits[:, :, index] + q[:, :, index] @ tables.T
        out = logits.softmax(-1) @ v
        return out.transpose(2, 3).flatten(1, 2).unflatten(2, (side, side))


class Block(nn.Module):
    def __init__(self, dim, out, side, heads, width):
        super().__init__()
        middle = heads * width
        self.shortcut = nn.Identity()
        if dim != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(dim, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
            )
        self.net = nn.Sequential(
            *(nn.Conv2d(dim, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
            *(Attention(middle, side, heads, width), nn.Identity()),
            *(nn.BatchNorm2d(middle), nn.ReLU()),
            *(nn.Conv2d(middle, out, 1, bias=False), nn.BatchNorm2d(out)),
        )

    def forward(self, x):
        return (self.net(x) + self.shortcut(x)).relu()


class Stack(nn.Module):
    def __init__(self, blocks, side, heads, width):
        super().__init__()
        channels = [1024] + [2048] * blocks
        self.net = nn.Sequential(
            *(Block(channels[i], 2048, side, heads, width) for i in range(blocks))
        )

    def forward(self, x):
        return self.net(x)


def theirs(layers=(1, 1, 1, 2), side=6, heads=4, classes=7):
    torch.manual_seed(0)
    bottleneck = torchvision.models.resnet.Bottleneck
    resnet = torchvision.models.ResNet(bottleneck, [*layers[:3], 1])
    network = nn.Sequential(
        *list(resnet.children())[:-3],
        *(Stack(layers[3], side, heads, 512 // heads), nn.AdaptiveAvgPool2d((1, 1))),
        *(nn.Flatten(1), nn.Linear(2048, classes)),
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture
def checkpoint(tmp_path):
    """A file as its trainer writes it."""

    def write(network):
        path = tmp_path / "ckpt_99.pth.tar"
        tensors = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"epoch": 99, "arch": "botnet50", "state_dict": tensors}, path)
        return path

    return write


@pytest.mark.parametrize("heads", [4, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_outputs_are_the_same(dtype, tolerance, heads):
    network = theirs(heads=heads).to(dtype)
    ours = from_distribuuuu(network.state_dict()).to(dtype)
    x = torch.randn(2, 3, 96, 96, dtype=dtype)
    with torch.no_grad():
        expected = network(x)
        assert expected.std() > 0.1
        assert_close(ours(x), expected, rtol=tolerance, atol=tolerance)
        assert ours(torch.randn(1, 3, 70, 130, dtype=dtype)).shape == (1, 7)


def test_positions_and_the_shortcut_count():
    network = theirs().double()
    x = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        for change in ("pos_emb.rel_height", "pos_emb.rel_width"):
            changed = copy.deepcopy(network)
            for name, parameter in changed.named_parameters():
                if name.endswith(change):
                    parameter.copy_(parameter.flip(0))
            assert not torch.allclose(changed(x), expected, atol=1e-4)
        ours = from_distribuuuu(network.state_dict()).double()
        ours.layer4[0].downsample[2] = nn.Identity()
        assert not torch.allclose(ours(x), expected, atol=1e-4)


def test_the_whole_botnet50(checkpoint):
    network = theirs((3, 4, 6, 3), side=14, classes=1000)
    ours = from_distribuuuu(read_checkpoint(checkpoint(network)))
    assert sum(parameter.numel() for parameter in ours.parameters()) == 20_859_176
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = network(x)
        # Of 53 layers in float32; the widths above are those of the network, at fewer layers.
        assert_close(ours(x) / expected.std(), expected / expected.std(), rtol=1e-5, atol=1e-5)


def test_its_weights_are_backbone_weights(checkpoint):
    network = theirs()
    path = checkpoint(network)
    arguments = {"layers": (1, 1, 1, 2), "shortcut_activation": True}
    ours = botvision.create_model("botnet50_s1", num_classes=7, img_size=96, **arguments)
    report = load_backbone_weights(ours, path)
    assert report.new == report.left_out == ()
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert_close(ours.eval()(x), network(x), rtol=1e-5, atol=1e-5)
    detector = faster_rcnn(
        *("botnet50_s1", 3), image_size=64, fpn_channels=8, backbone_arguments=arguments
    )
    report = load_detector_backbone(detector, path)
    assert report.new == ()
    assert set(report.left_out) == {"fc.weight", "fc.bias"}


def test_a_network_without_its_shortcut_is_refused(checkpoint):
    ours = botvision.create_model("botnet50_s1", layers=(1, 1, 1, 2), num_classes=7)
    before = ours.conv1.weight.clone()
    with pytest.raises(BotvisionError, match="expected botnet50_s1 with shortcut_activation=True"):
        load_backbone_weights(ours, checkpoint(theirs()))
    assert torch.equal(ours.conv1.weight, before)


def test_it_is_published_and_comes_back(tmp_path):
    ours = from_distribuuuu(theirs().state_dict())
    again = from_pretrained(save_pretrained(ours, tmp_path / "published"))
    x = torch.randn(1, 3, 96, 96)
    assert torch.equal(again(x), ours(x))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tensors: tensors.clear(), "expected those of distribuuuu's botnet50"),
        (lambda tensors: tensors.pop("7.net.1.net.7.weight"), "layer4.1.conv3.weight"),
        (lambda tensors: tensors.pop("7.net.0.net.3.to_v.weight"), "size mismatch|another model"),
        (lambda tensors: tensors.pop("10.weight"), "another model than botnet50: 'fc.weight'"),
        (lambda tensors: tensors.update({"11.weight": torch.ones(1)}), "11.weight"),
    ],
)
def test_other_weights_are_refused(change, expected):
    tensors = theirs().state_dict()
    change(tensors)
    with pytest.raises(BotvisionError, match=expected) as raised:
        from_distribuuuu(tensors)
    assert "\n" not in str(raised.value)
