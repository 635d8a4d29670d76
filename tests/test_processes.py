"""Several processes that do not train: they end well."""

import subprocess
import sys


def test_processes_end_well(tmp_path):
    # Without leaving the group, in half of all runs one of the four aborts at its end.
    script = tmp_path / "gather.py"
    script.write_text(
        "import torch\n"
        "from accelerate.utils import gather_object\n"
        "from botvision.processes import processes\n"
        "assert processes().num_processes == 4\n"
        "for _ in range(20):\n"
        "    torch.distributed.all_reduce(torch.ones(8))\n"
        "    gather_object([1] * 100)\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "4", str(script)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
