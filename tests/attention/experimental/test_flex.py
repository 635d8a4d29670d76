"""FlexAttention's score function is the reference's logits; the GPU's kernel is not run here."""

import warnings

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex
from torch.testing import assert_close

from botvision.attention import decomposed_attention
from botvision.attention.experimental.flex import score_function

SIZE = (3, 4)


@pytest.fixture
def uncompiled(monkeypatch):
    """torch's FlexAttention in plain operations, which only refuses gradients on the CPU."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *tensors: None)

    def attend(*args, **kwargs):
        with warnings.catch_warnings():
            # torch warns, once, of the N x N scores that it makes without torch.compile.
            warnings.filterwarnings("ignore", category=UserWarning, module="torch.nn.attention")
            return torch_flex.flex_attention(*args, **kwargs)

    return attend


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("bias_w", [True, False])
@pytest.mark.parametrize("bias_h", [True, False])
def test_score_function_is_the_reference(bias_h, bias_w, content, uncompiled, run, make_inputs):
    inputs = make_inputs(SIZE, value_dim=7, bias_h=bias_h, bias_w=bias_w)
    expected, expected_grads = run(inputs, SIZE, "reference", content=content, scale=0.7)
    score = score_function(inputs["bias_h"], inputs["bias_w"], SIZE[1])
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    out = uncompiled(q, k, v, score_mod=score, scale=0.7 if content else 0.0)
    assert_close(out, expected)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    for name, grad in expected_grads.items():
        (actual,) = torch.autograd.grad(
            out, inputs[name], cotangent, retain_graph=True, materialize_grads=True
        )
        assert_close(actual, torch.zeros_like(actual) if grad is None else grad)


def test_refuses_other_devices_in_one_line(make_inputs):
    with pytest.raises(ValueError, match=r"^impl 'flex': expected .* CUDA device, got cpu$"):
        decomposed_attention(**make_inputs(SIZE), size=SIZE, impl="flex")
