"""Two hosts: network namespaces of this machine, joined by a cable of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from botvision.training.run_folder import RunFolder


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts():
    """Names and addresses of two namespaces that see nothing but each other."""
    names = [f"botvision{os.getpid()}{end}" for end in "ab"]
    cables = [f"bv{os.getpid() % 10**6}{end}" for end in "ab"]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), start=1):
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", cable)
            ip("-n", name, "link", "set", cable, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        for name in made:
            ip("netns", "del", name)
        pytest.skip(f"network namespaces are not permitted here ({error})")
    yield [(name, cable, f"10.77.0.{n}") for n, (name, cable) in enumerate(zip(names, cables), 1)]  # noqa: B905
    for name in made:
        ip("netns", "del", name)


@pytest.mark.slow
def test_two_hosts_have_the_losses_of_one_process(hosts, make_recipe, tmp_path):
    settings = (
        "training.batch_size=4",
        "training.micro_batch_size=2",
        "training.precision=float32",
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(make_recipe(*settings).model_dump(mode="json")))
    botvision = Path(sys.executable).with_name("botvision")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = [str(botvision), "train", str(recipe), "--runs", str(tmp_path), "--name", "alone"]
    subprocess.run(alone, check=True, capture_output=True, env=environment, timeout=1800)
    first = hosts[0][2]
    started = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)),
                *("--master-addr", first, "--master-port", "29511", "--no-python"),
                *(str(botvision), "train", str(recipe), "--json"),
                *("--runs", str(tmp_path), "--name", "together"),
            ],
            env={**environment, "GLOO_SOCKET_IFNAME": cable},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, (name, cable, _) in enumerate(hosts)
    ]
    try:
        outputs = [each.communicate(timeout=1800) for each in started]
    finally:
        for each in started:
            each.kill()
    assert [each.returncode for each in started] == [0, 0], outputs
    # The first host alone prints.
    assert [bool(output.strip()) for output, _ in outputs] == [True, False]
    runs = [RunFolder(tmp_path / "instance_segmentation" / name) for name in ("alone", "together")]
    for found, wanted in zip(runs[1].history(), runs[0].history(), strict=True):
        assert found["step"] == wanted["step"]
        if "losses" in wanted:
            assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-4)
    assert json.loads(outputs[0][0])["metrics"].items() >= runs[1].last_metrics().items()
