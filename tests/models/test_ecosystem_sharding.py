"""Two processes that share a network's parameters (FSDP) train as one that holds them all.

The processes are this file, run as a program.
"""

import json
import os
import subprocess
import sys

import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing import assert_close

import botvision.models  # noqa: F401  # registers the models with timm

PROCESSES = 2
STEPS = 3
CASES = {
    "relative": {},
    "stride 16": {"output_stride": 16},
    "absolute": {"position": "absolute"},
    "none": {"position": "none"},
    "frozen attention": {"frozen": True},
    "checkpointing": {"checkpointing": True},
}


def build(*, frozen=False, checkpointing=False, **options):
    """In float64, so that what differs is not rounding; running statistics are left alone."""
    torch.manual_seed(0)
    arguments = {"img_size": 64, "num_classes": 5, "layers": (1, 1, 1, 2), "zero_init_last": False}
    model = timm.create_model("botnet_tiny", **arguments, **options)
    model = model.double().eval()
    model.set_grad_checkpointing(checkpointing)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (frozen and ".attention." in name))
    return model


def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 64, 96, generator=generator)
    return x.double(), torch.tensor([0, 3, 4, 1])


def train(model, x, y, average=lambda loss: loss):
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(average(loss.detach()).item())
    return losses


def average(loss):
    dist.all_reduce(loss)
    return loss / PROCESSES


def shard(model, mesh):
    """Each block apart and the rest together, as FSDP's guides do."""
    for number in range(1, 5):
        for block in model.get_submodule(f"layer{number}"):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def main(rank, store, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=PROCESSES)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for number, case in enumerate(CASES.values()):
        model = build(**case)
        x, y = (part.chunk(PROCESSES)[rank] for part in batch())
        shard(model, mesh)
        here = sum(p.to_local().numel() for p in model.parameters())
        result = {"losses": train(model, x, y, average), "elements": here}
        result["state"] = get_model_state_dict(
            model, options=StateDictOptions(full_state_dict=True)
        )
        torch.save(result, f"{results}/{number}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of each process, by case."""
    folder = tmp_path_factory.mktemp("fsdp")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONWARNINGS": "ignore",
    }
    arguments = [sys.executable, __file__]
    running = [
        subprocess.Popen(
            [*arguments, json.dumps([rank, str(folder / "store"), str(folder)])],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * PROCESSES, "\n".join(errors)
    return {
        case: [
            torch.load(folder / f"{number}-{rank}.pt", weights_only=True)
            for rank in range(PROCESSES)
        ]
        for number, case in enumerate(CASES)
    }


@pytest.mark.parametrize("case", CASES)
def test_sharded_training_is_the_same_training(case, results):
    model = build(**CASES[case])
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = sum(p.numel() for p in model.parameters())
    expected = train(model, *batch())
    assert expected[-1] < expected[0]
    for result in results[case]:
        assert_close(result["losses"], expected, rtol=1e-9, atol=1e-9)
        # Each process holds about half.
        assert 0.4 * parameters < result["elements"] < 0.6 * parameters
    state = results[case][0]["state"]
    assert state.keys() == model.state_dict().keys()
    assert_close(state, dict(model.state_dict()), rtol=1e-9, atol=1e-9)
    attention = {name for name in state if ".attention." in name}
    assert attention
    for name in attention:
        assert torch.equal(state[name], start[name]) == ("frozen" in CASES[case]), name
    # And an ordinary network takes what comes back.
    other = build(**CASES[case])
    nn.init.zeros_(other.fc.weight)
    other.load_state_dict(state)
    x, y = batch()
    assert nn.functional.cross_entropy(other(x), y) < expected[-1]


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
