"""Gradient checkpointing, memory formats, narrow numbers and copies of a whole network."""

import copy
import io
import pickle

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import botvision.models  # noqa: F401  # registers the models with timm


def tiny(**options):
    """Both kinds of attention block: with and without pooling."""
    torch.manual_seed(0)
    arguments = {"img_size": 64, "num_classes": 5, "zero_init_last": False}
    return timm.create_model("botnet_tiny", **{**arguments, **options})


def image(side=64, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, side, side, generator=generator).to(dtype)


def training_step(model, x, *, autocast=False):
    """Output, gradients and running statistics of a model in training, and then a step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    optimizer.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model.train()(x)
        loss = nn.functional.cross_entropy(out, torch.tensor([0, 3]))
    loss.backward()
    result = {"output": out.detach(), "loss": loss.detach(), "image": x.grad}
    result |= {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    return result | {name: tensor.clone() for name, tensor in model.state_dict().items()}


def saved_bytes(model, x):
    """What the forward pass keeps for the backward: all, the stem's, and the blocks' inputs."""
    parameters = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    storages, inputs, stem = {}, set(), []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    blocks = [block for number in range(1, 5) for block in model.get_submodule(f"layer{number}")]
    hooks = [
        block.register_forward_pre_hook(
            lambda module, args: inputs.add(args[0].untyped_storage().data_ptr())
        )
        for block in blocks
    ]
    hooks.append(model.maxpool.register_forward_hook(lambda *_: stem.append(set(storages))))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    for hook in hooks:
        hook.remove()
    assert out.requires_grad  # and keeps what was saved, so that no address was used twice
    kept = [sum(storages[at] for at in part & set(storages)) for part in (*stem, inputs)]
    return sum(storages.values()), *kept


def test_checkpointing_changes_no_number(variant):
    results = []
    for enable in (False, True):
        model = tiny(**variant)
        model.set_grad_checkpointing(enable)
        results.append(training_step(model, image()))
    # The running statistics apart, which the second forward pass moves once more.
    names = [name for name in results[0] if "running" not in name and "tracked" not in name]
    assert_close(*({name: result[name] for name in names} for result in results), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["botnet_tiny", "botnet50"])
def test_checkpointing_saves_memory(name, variant):
    model = timm.create_model(name, img_size=64, num_classes=5, **variant).train()
    plain, *_ = saved_bytes(model, image())
    model.set_grad_checkpointing()
    total, stem, inputs = saved_bytes(model, image())
    assert total < plain / 2
    # Of a block its input is left and nothing else, whatever its attention computes.
    pooled = 2 * model.num_features * 4
    assert total <= stem + inputs + pooled


def maps_of(model, x):
    """Every map that a layer of the backbone hands on."""
    maps = []

    def keep(module, args, out):
        if isinstance(out, torch.Tensor):  # the position biases are two
            maps.append(out)

    for module in model.modules():
        module.register_forward_hook(keep)
    model.forward_features(x)
    return maps


def test_channels_last_is_the_same_network(variant):
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = tiny(**variant).double().to(memory_format=memory_format)
        x = image(dtype=torch.float64).to(memory_format=memory_format)
        results.append(training_step(model, x))
    assert_close(results[1], results[0], rtol=1e-7, atol=1e-9)
    # And no layer on the way turns the maps around.
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps_of(model, x))


def relative_distance(actual, expected):
    """Root mean square of the difference over that of what is expected."""
    actual, expected = (
        torch.cat([tensor.double().flatten() for tensor in each.values()])
        for each in (actual, expected)
    )
    return ((actual - expected).norm() / expected.norm()).item()


def outputs_and_gradients(model, x, *, autocast=False):
    """With fixed statistics: those of a few pixels magnify what rounding does."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model.eval()(x)
        nn.functional.cross_entropy(out, torch.tensor([0, 3])).backward()
    return {"out": out.detach()}, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("autocast", [False, True], ids=["cast", "autocast"])
def test_bfloat16(variant, autocast):
    wide, narrow = tiny(**variant), tiny(**variant)
    x = image()
    if not autocast:
        narrow, x = narrow.bfloat16(), x.bfloat16()
    expected = outputs_and_gradients(wide, image())
    found = outputs_and_gradients(narrow, x, autocast=autocast)
    kept = torch.float32 if autocast else torch.bfloat16
    assert {gradient.dtype for gradient in found[1].values()} == {kept}
    assert found[0]["out"].dtype == torch.bfloat16
    assert relative_distance(found[0], expected[0]) < 0.03
    assert relative_distance(found[1], expected[1]) < 0.15
    trained = training_step(narrow, x, autocast=autocast)
    assert all(tensor.isfinite().all() for tensor in trained.values())


def by_state_dict(model):
    """The parameters through a file that cannot run code, into a new model."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(model)
    for tensor in other.state_dict().values():
        tensor.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def by_torch_save(model):
    """The whole model, which is a pickle."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


CLONES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": by_torch_save,
    "state_dict": by_state_dict,
}


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
def test_copy_trains_as_its_original(clone, variant):
    model = tiny(**variant)
    training_step(model, image())  # statistics and parameters that are not those of a new model
    twin = clone(model)
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {p.data_ptr() for p in twin.parameters()}
    expected = training_step(model, image())
    assert_close(training_step(twin, image()), expected, rtol=0, atol=0)
