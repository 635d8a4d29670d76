"""The implementations, random inputs for them, and one step forward and backward."""

import pytest
import torch

from botvision.attention import decomposed_attention

# "reference" first: it is what the others are compared with.
ON_CPU = ("reference", "chunked", "fused")
ON_GPU_ONLY = ("flex", "triton")


@pytest.fixture(params=ON_CPU)
def impl(request):
    """Each implementation that runs on the CPU, forward and backward."""
    return request.param


@pytest.fixture(scope="session")
def on_cpu():
    return ON_CPU


@pytest.fixture(scope="session")
def on_gpu_only():
    return ON_GPU_ONLY


@pytest.fixture(scope="session")
def make_inputs():
    """A function that draws inputs of ``decomposed_attention`` as leaves of the graph."""

    def make(
        size,
        *,
        batch=2,
        heads=2,
        dim=4,
        value_dim=None,
        bias_h=True,
        bias_w=True,
        dtype=torch.float64,
        seed=0,
    ):
        generator = torch.Generator().manual_seed(seed)
        height, width = size
        n = height * width

        def draw(last):
            # Drawn in float64 so that all dtypes round the same numbers.
            values = torch.randn(batch, heads, n, last, generator=generator, dtype=torch.float64)
            return values.to(dtype).requires_grad_()

        inputs = {"q": draw(dim), "k": draw(dim), "v": draw(value_dim or dim)}
        inputs["bias_h"] = draw(height) if bias_h else None
        inputs["bias_w"] = draw(width) if bias_w else None
        return inputs

    return make


@pytest.fixture(scope="session")
def run():
    """A function that gives the output and, by name, the gradients of the inputs."""

    def step(inputs, size, impl, *, attend=decomposed_attention, cotangent=None, **options):
        leaves = {name: t for name, t in inputs.items() if t is not None}
        out = attend(**inputs, size=size, impl=impl, **options)
        if cotangent is None:  # the same for all implementations
            generator = torch.Generator().manual_seed(1)
            cotangent = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        grads = torch.autograd.grad(
            out, list(leaves.values()), cotangent.to(out.dtype), allow_unused=True
        )
        return out.detach(), dict(zip(leaves, grads, strict=True))

    return step


@pytest.fixture(scope="session")
def assert_step_close():
    """A function that compares two steps by the field's tolerances (faults.md)."""
    # Gradients sum over N terms, hence the looser.
    tolerances = {
        torch.float64: ({"rtol": 1e-10, "atol": 1e-12}, {"rtol": 1e-9, "atol": 1e-11}),
        torch.float32: ({"rtol": 1.3e-6, "atol": 1e-5}, {"rtol": 1.3e-5, "atol": 3e-5}),
    }

    def check(actual, expected):
        (out, grads), (expected_out, expected_grads) = actual, expected
        of_output, of_gradients = tolerances[expected_out.dtype]
        torch.testing.assert_close(out, expected_out, **of_output)
        assert grads.keys() == expected_grads.keys()
        for name, grad in expected_grads.items():
            # An input that takes no part has no gradient or one of zeros.
            if grad is None or grads[name] is None:
                assert all(g is None or not g.any() for g in (grad, grads[name])), name
            else:
                torch.testing.assert_close(
                    grads[name], grad, **of_gradients, msg=lambda m, n=name: f"{n}: {m}"
                )

    return check
