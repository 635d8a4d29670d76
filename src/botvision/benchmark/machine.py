"""Description of the machine that a benchmark ran on."""

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from botvision import __version__


@dataclass(frozen=True)
class Machine:
    """Properties of the machine that measured times depend on.

    Attributes:
        cpu: Model of the processor.
        cores: Number of cores that this process may use.
        threads: Number of torch's threads within an operation.
        instruction_sets: Instruction set of torch's CPU kernels, as "AVX512".
        gpu: Model of the GPU, if it was measured on one.
        cuda: Version of CUDA that torch was built for, if it was measured on a GPU.
        load_before: Load average of the minute before the benchmark; near 0 on an idle machine.
        float32_matmul_precision: "highest" unless TF32 or the like was allowed.
        torch: Version of torch.
        botvision: Version of botvision.
        python: Version of Python.
        system: Operating system and architecture.
        date: Time of the start, UTC.
    """

    cpu: str
    cores: int
    threads: int
    instruction_sets: str
    gpu: str | None
    cuda: str | None
    load_before: float
    float32_matmul_precision: str
    torch: str
    botvision: str
    python: str
    system: str
    date: str

    def title(self) -> str:
        """Return one line for tables and plots."""
        cpu = f"{self.cpu}, {self.threads} of {self.cores} cores, {self.instruction_sets}"
        return (
            f"{self.gpu or cpu}; torch {self.torch}; load {self.load_before:.1f} before; "
            f"{self.date[:10]}"
        )


def describe_machine(device: str) -> Machine:
    """Describe this machine; call it before anything is measured.

    Args:
        device: "cpu" or "cuda".
    """
    on_gpu = device == "cuda"
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    return Machine(
        cpu=_cpu_model(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        instruction_sets=torch.backends.cpu.get_cpu_capability(),
        gpu=torch.cuda.get_device_name() if on_gpu else None,
        cuda=torch.version.cuda if on_gpu else None,
        load_before=os.getloadavg()[0],
        float32_matmul_precision=torch.get_float32_matmul_precision(),
        torch=torch.__version__,
        botvision=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _cpu_model(listing: Path = Path("/proc/cpuinfo")) -> str:
    """Return the model of the processor; Linux lists it in a file."""
    if listing.is_file():
        for line in listing.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
