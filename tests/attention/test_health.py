"""Health of attention, against attention that is known and against the formulas in NumPy."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import botvision
from botvision.attention import MultiHeadSelfAttention2d, attention_health
from botvision.attention.health import recording_health
from botvision.attention.operation import Operands
from botvision.attention.rows import AttendingLayer
from botvision.detection import mask_rcnn
from botvision.models.foreign import convert_attention
from botvision.models.non_local import NonLocal2d

SIZE = (4, 6)
N = math.prod(SIZE)
CELLS = [divmod(index, SIZE[1]) for index in range(N)]


class Known(AttendingLayer):
    """A layer whose logits are given, [heads, N, N]."""

    def __init__(self, logits, size=SIZE):
        super().__init__()
        self.logits, self.size = logits, size

    def operands(self, x):
        q = self.logits[None].expand(len(x), -1, -1, -1)
        k = torch.eye(q.shape[-1], dtype=q.dtype).expand_as(q)
        return Operands(q, k, k, None, None, self.size, 1.0, content=True)

    def forward(self, x):
        return x


def health_of(logits, size=SIZE):
    (found,) = attention_health(Known(logits.double(), size), torch.zeros(2, 3, 8, 8))
    return found


def on_keys(keys):
    """Logits of a head whose query i looks at keys[i] alone."""
    logits = torch.full((len(keys), len(keys)), -1e4)
    logits[range(len(keys)), keys] = 0
    return logits


def test_uniform_attention():
    found = health_of(torch.zeros(3, N, N))
    assert found.map_size == SIZE
    assert found.entropy == pytest.approx([1] * 3)
    assert found.mutual_information == pytest.approx([0] * 3, abs=1e-12)
    assert found.content_std == found.position_std == (0, 0, 0)
    assert found.overlap == pytest.approx(1)
    distances = [math.dist(a, b) for a, b in itertools.product(CELLS, CELLS)]
    assert found.distance == pytest.approx([sum(distances) / len(distances)] * 3)
    assert found.collapsed == ()


def test_all_on_one_key():
    key = 7
    found = health_of(on_keys([key] * N)[None])
    assert found.entropy == found.mutual_information == pytest.approx([0], abs=1e-12)
    assert found.distance == pytest.approx([np.mean([math.dist(a, CELLS[key]) for a in CELLS])])
    assert found.collapsed == (0,)
    assert found.overlap is None  # of one head


def test_each_query_on_itself():
    found = health_of(on_keys(range(N))[None])
    assert found.entropy == pytest.approx([0], abs=1e-12)
    assert found.mutual_information == pytest.approx([math.log(N)])
    assert found.distance == (0,)
    assert found.collapsed == ()


def test_each_query_on_its_neighbor():
    down, right = 1, 2  # around the edges
    keys = [(row + down) % 4 * 6 + (column + right) % 6 for row, column in CELLS]
    found = health_of(torch.stack([on_keys(keys), on_keys(range(N))]))
    assert found.mutual_information == pytest.approx([math.log(N)] * 2)
    moved = [math.dist(CELLS[query], CELLS[key]) for query, key in enumerate(keys)]
    assert found.distance == pytest.approx([np.mean(moved), 0])
    assert found.overlap == pytest.approx(0, abs=1e-12)


def test_few_places_are_a_collapse_and_many_are_not():
    two, all_of_a_row = [index % 2 for index in range(N)], [index % 6 for index in range(N)]
    found = health_of(torch.stack([on_keys(two), on_keys(all_of_a_row)]))
    assert found.mutual_information == pytest.approx([math.log(2), math.log(6)])
    assert found.collapsed == (0,)


def test_large_maps_are_sampled_evenly():
    side = 40
    found = health_of(on_keys(range(side * side))[None], (side, side))
    assert found.mutual_information == pytest.approx([math.log(16 * 16)])
    assert found.distance == (0,)
    # A head that looks at the middle: the sampled queries are as far from it as all are.
    middle = side // 2 * side + side // 2
    found = health_of(on_keys([middle] * side**2)[None], (side, side))
    places = [divmod(index, side) for index in range(side * side)]
    assert found.distance == pytest.approx(
        [np.mean([math.dist(a, places[middle]) for a in places])], rel=0.05
    )


def by_formula(content, position):
    """Figures of one head from its logits, [N, N] in float64."""
    p = np.exp(content + position)
    p /= p.sum(1, keepdims=True)
    entropy = -np.mean([sum(v * math.log(v) for v in row) for row in p])
    joint = p / N
    of_key = joint.sum(0)
    information = sum(
        joint[i, j] * math.log(joint[i, j] / (of_key[j] / N)) for i in range(N) for j in range(N)
    )
    distance = sum(joint[i, j] * math.dist(CELLS[i], CELLS[j]) for i in range(N) for j in range(N))
    stds = (content.std(1).mean(), position.std(1).mean())
    return p, (entropy / math.log(N), information, *stds, distance)


def assert_is(found, logits):
    """``logits``: content and position of each head."""
    maps, expected = zip(*(by_formula(*each) for each in logits), strict=True)
    figures = zip(
        found.entropy,
        found.mutual_information,
        found.content_std,
        found.position_std,
        found.distance,
        strict=True,
    )
    assert [*figures] == [pytest.approx(each, rel=1e-9) for each in expected]
    pairs = [np.minimum(a, b).sum(1).mean() for a, b in itertools.combinations(maps, 2)]
    if pairs:
        assert found.overlap == pytest.approx(np.mean(pairs), rel=1e-9)


@pytest.mark.parametrize("position", ["relative", "absolute", "none"])
@pytest.mark.parametrize("content", [True, False])
def test_our_layer(position, content):
    if position == "none" and not content:
        return
    torch.manual_seed(0)
    layer = MultiHeadSelfAttention2d(
        8, 2, position=position, content=content, position_size=SIZE
    ).double()
    x = 2 * torch.randn(1, 8, *SIZE, dtype=torch.float64)
    q, k, _ = (
        part.reshape(2, 4, N).transpose(1, 2).detach().numpy() for part in layer.qkv(x)[0].chunk(3)
    )
    logits = []
    for head in range(2):
        places = np.zeros((N, N))
        for (i, (row, column)), (j, (r, c)) in itertools.product(
            enumerate(CELLS), enumerate(CELLS)
        ):
            if position == "relative":
                at = r - row + SIZE[0] - 1, c - column + SIZE[1] - 1
            else:
                at = r, c
            if position != "none":
                height, width = layer.position.height[at[0]], layer.position.width[at[1]]
                places[i, j] = q[head, i] @ (height + width).detach().numpy() / 2
        both = q[head] @ k[head].T / 2 if content else np.zeros((N, N))
        logits.append((both, places))
    if position == "relative":  # the row's and the column's terms vary independently
        assert np.allclose(
            logits[0][1].std(1),
            np.sqrt(
                logits[0][1].reshape(N, *SIZE).mean(2).var(1)
                + logits[0][1].reshape(N, *SIZE).mean(1).var(1)
            ),
        )
    (found,) = attention_health(layer, x)
    assert_is(found, logits)


def test_non_local_block():
    torch.manual_seed(0)
    block = NonLocal2d(8).double()
    for projection in (block.theta, block.phi):
        nn.init.normal_(projection.weight, std=0.5)
    x = torch.randn(1, 8, *SIZE, dtype=torch.float64)
    q, k = (
        projection(x)[0].flatten(1).T.detach().numpy() for projection in (block.theta, block.phi)
    )
    (found,) = attention_health(block, x)
    assert_is(found, [(q @ k.T / 2, np.zeros((N, N)))])


def test_timms_botnet_and_lucidrains_stack():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bottleneck_transformer_pytorch import BottleStack
    from timm.layers.bottleneck_attn import BottleneckAttn

    stack = BottleStack(dim=16, dim_out=32, fmap_size=SIZE, num_layers=2, dim_head=8, heads=2)
    timms = nn.Sequential(BottleneckAttn(16, feat_size=SIZE, num_heads=2))
    for network, layers in ((stack, 2), (timms, 1)):
        network.double().eval()
        x = torch.randn(1, 16, *SIZE, dtype=torch.float64)
        with pytest.raises(ValueError, match=r"expected a network with attention.*convert"):
            attention_health(network, x)
        found = attention_health(convert_attention(network), x)
        assert [len(each.entropy) for each in found] == [2] * layers
    # timm's own logits, from its softmax's input.
    torch.manual_seed(0)
    theirs = BottleneckAttn(16, feat_size=SIZE, num_heads=2).double().eval()
    nn.init.normal_(theirs.pos_embed.height_rel)
    nn.init.normal_(theirs.pos_embed.width_rel)
    q, k, _ = (part.reshape(2, 8, N).transpose(1, 2) for part in theirs.qkv(x)[0].split(16))
    places = theirs.pos_embed(q).detach().numpy()
    content = (q @ k.transpose(1, 2) / math.sqrt(8)).detach().numpy()
    (found,) = attention_health(convert_attention(nn.Sequential(theirs)), x)
    assert_is(found, [*zip(content, places, strict=True)])


def test_networks_and_detectors():
    network = botvision.create_model("botnet_tiny", num_classes=3)
    found = attention_health(network, torch.randn(2, 3, 96, 128))
    assert [each.map_size for each in found] == [(6, 8), (3, 4)]
    assert network.training
    detector = mask_rcnn("botnet_tiny", num_classes=2, image_size=128).eval()
    hooks = [len(module._forward_pre_hooks) for module in detector.modules()]
    found = attention_health(detector, [torch.rand(3, 60, 90), torch.rand(3, 128, 128)])
    assert [each.layer for each in found] == [
        f"backbone.body.layer4.{block}.conv2.attention" for block in range(2)
    ]
    assert not detector.training
    assert hooks == [len(module._forward_pre_hooks) for module in detector.modules()]


def test_only_the_first_images_are_measured():
    class Changing(Known):
        def operands(self, x):
            self.logits = torch.full((1, N, N), 0.0)
            self.logits[..., 3] = float(x.flatten()[0])
            return super().operands(x)

    layer = Changing(None)
    with recording_health(layer, 3) as recorder:
        layer(torch.zeros(2, 3, 4, 4))
        layer(torch.tensor([0.0, 1e4]).view(2, 1, 1, 1))
        layer(torch.full((1, 1, 1, 1), 1e4))
    (found,) = recorder.layers()
    assert found.entropy == pytest.approx([1])
    with recording_health(nn.Identity(), 3) as recorder:
        pass
    assert recorder.layers() == []


@pytest.mark.parametrize("size", [(1, 1), (1, 5)])
def test_narrow_maps(size):
    layer = MultiHeadSelfAttention2d(8, 2, position_size=size)
    (found,) = attention_health(layer, torch.randn(1, 8, *size))
    assert all(0 <= value <= 1 + 1e-6 for value in found.entropy)
    assert all(math.isfinite(value) for value in (*found.mutual_information, *found.distance))
    if size == (1, 1):
        assert found.entropy == (1, 1)  # all that there is
        assert found.collapsed == ()
