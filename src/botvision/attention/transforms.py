"""What runs around the attention: tracing, transforms of torch.func, forward-mode derivatives."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch  # torch has no public name for the active transforms
from torch.autograd import forward_ad


def is_tracing() -> bool:
    """Return whether ``torch.jit.trace`` records the operations; sizes are tensors then."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def is_recorded() -> bool:
    """Return whether the operations are recorded for other programs, by an exporter or a trace."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or is_tracing()


def needs_plain_operations(*tensors: Tensor | None) -> bool:
    """Return whether only torch's own operations have the rules for what is being done.

    So it is under the transforms of ``torch.func`` (vmap, grad, jvp, ...), and where forward-mode
    derivatives are taken of any of the tensors. A compiler does not show the latter, so for it a
    level of dual tensors is enough.
    """
    if torch.compiler.is_compiling():
        # Read as it is, so that the compiled graph is guarded by it.
        return forward_ad._current_level >= 0
    return _functorch.peek_interpreter_stack() is not None or any(
        each is not None and forward_ad.unpack_dual(each).tangent is not None for each in tensors
    )


def as_leaf(module: nn.Module, x: Any) -> Any:
    """Record a call of a module in a graph of ``torch.fx``, as of torch's own layers.

    Its forward branches on sizes, which fx cannot record.

    Args:
        module: The module, in its own forward.
        x: Its input, a ``torch.fx.Proxy``.
    """
    tracer = x.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), (x,), {})
