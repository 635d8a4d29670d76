"""The Triton kernels compile to machine code for NVIDIA GPUs; no GPU is needed for that.

Triton decides on its import whether kernels are interpreted or compiled. So this file is also a
script: the tests run it once, in a fresh process, and read what its cases report.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import traceback
import warnings

import pytest
import torch

from botvision.attention.experimental.triton_attention import configure

# Shared memory of a multiprocessor that one program may use, in bytes.
SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}


def check_compiled(kernel, capability, dtype, dim, size):
    """Machine code as a launch would ask for it, within the GPU's shared memory."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from botvision.attention.experimental import triton_kernels

    n = size[0] * size[1]
    heads = min(4, dim)
    widths = {"q": dim, "k": dim, "v": dim, "bias_h": size[0], "bias_w": size[1], "grad_out": dim}
    widths |= {"out": dim, "grad_q": dim, "grad_k": dim, "grad_v": dim}
    widths |= {"grad_h": size[0], "grad_w": size[1]}
    function = getattr(triton_kernels, kernel)
    tensors = {
        name: torch.empty(2, heads, n, width, dtype=dtype, device="meta")
        for name, width in widths.items()
        if name in function.arg_names
    }
    for name in {"log_sum_exp", "delta", "grad_h"} & set(function.arg_names):
        tensors[name] = torch.empty(2, heads, n, 1, dtype=torch.float32, device="meta")
    inputs = {name: t for name, t in tensors.items() if f"{name}_batch" in function.arg_names}
    buffers = {name: t for name, t in tensors.items() if name not in inputs}
    launch = configure(
        kernel,
        inputs,
        buffers,
        size=size,
        scale=1.0,
        content=True,
        hopper=capability == 90,
    )
    pointers = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
    signature, constants, attributes = {}, dict(launch.constants), {}
    for i, name in enumerate(function.arg_names):
        value = launch.arguments.get(name)
        if name in constants or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants.setdefault(name, value)
        elif isinstance(value, torch.Tensor):
            signature[name] = pointers[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    compiled = compile_kernel(
        ASTSource(function, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options=launch.options,
    )
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= SHARED_MEMORY[capability]


KERNELS = ("forward_kernel", "query_gradient_kernel", "key_gradient_kernel")
COMPILED = {
    f"{kernel}, sm_{capability}, {dtype}, heads of {dim}, {size[0]}x{size[1]}": functools.partial(
        check_compiled, kernel, capability, dtype, dim, size
    )
    for capability, dtype, dim, size in (
        (90, torch.bfloat16, 128, (64, 64)),  # the paper's heads
        (90, torch.bfloat16, 64, (14, 14)),
        (90, torch.float32, 128, (64, 64)),
        (80, torch.bfloat16, 128, (64, 64)),
        (86, torch.float16, 256, (5, 100)),
        (80, torch.bfloat16, 1, (1, 1)),  # Triton turns arguments that equal one into constants
    )
    for kernel in KERNELS
}


def report(cases):
    """Print what went wrong in each case, None where nothing did."""
    warnings.simplefilter("error")
    failures = {}
    for name, case in cases.items():
        failures[name] = None
        try:
            case()
        except Exception:
            failures[name] = traceback.format_exc()
    print(json.dumps(failures))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", COMPILED)
def test_compiles_for_gpus(case, compiled):
    assert compiled[case] is None, compiled[case]


if __name__ == "__main__":
    report(COMPILED)
