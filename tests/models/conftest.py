"""What every library that takes our networks must be able to do with them."""

import pytest
import torch

VARIANTS = {
    "relative": {},
    "stride 16": {"output_stride": 16},
    "absolute": {"position": "absolute"},
    "none": {"position": "none"},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request):
    """Arguments of a network: the positions of table 4, and S1."""
    return dict(request.param)


@pytest.fixture(scope="session")
def assert_gradients():
    """A function that backpropagates a loss and sees a gradient at every parameter of a module."""

    def check(module, loss):
        loss.backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    return check


@pytest.fixture(scope="session")
def assert_descends(assert_gradients):
    """A function that steps down the gradient and sees the loss fall by what the gradient says.

    It takes a module and its loss, a smooth function of nothing, in float64. The step is so small
    that the fall, a millionth of the loss, is the gradient's squared length times the rate.
    """

    def check(module, loss_of):
        loss = loss_of()
        assert_gradients(module, loss)
        steepness = sum(p.grad.square().sum().item() for p in module.parameters())
        promised = 1e-6 * loss.item()
        torch.optim.SGD(module.parameters(), lr=promised / steepness).step()
        assert (loss - loss_of()).item() == pytest.approx(promised, rel=0.05)

    return check


@pytest.fixture
def apart(forked):
    """Runs a check that compiles by inductor in a copy of this process.

    Its backward pass starts threads, after which torch lets no copy of a process have one.
    """

    def run(check):
        copy = forked(check)
        assert copy.wait(timeout=3600) == [0], copy.text()

    return run
