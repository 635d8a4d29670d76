"""Two processes, as torchrun starts them, are one run."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

TRAIN = Path("annotations") / "instances_train.json"


def test_two_processes_share_a_run(make_recipe, tmp_path):
    tiny_recipe = make_recipe()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")))
    botvision = Path(sys.executable).with_name("botvision")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--no-python", str(botvision), "train", str(recipe), "--json"),
            *("--set", "training.epochs=1", "--set", "training.batch_size=2"),
            *("--set", "training.log_every=1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "instance_segmentation").iterdir()
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    images = len(json.loads((tiny_recipe.data.folder / TRAIN).read_text())["images"])
    # Each step takes two images on each of two processes, and is written once.
    steps = [record["step"] for record in history if "losses" in record]
    assert steps == list(range(1, -(-images // 4) + 1))
    (evaluation,) = (record["metrics"] for record in history if "metrics" in record)
    # Both print what both know; the images were split between them and counted once.
    printed = [json.loads(line)["metrics"] for line in done.stdout.splitlines() if line[:1] == "{"]
    assert printed
    for metrics in printed:
        assert metrics["box_ap"] == evaluation["box_ap"]
    results = json.loads((run / "predictions.json").read_text())
    keys = [(r["image_id"], r["category_id"], r["score"], *r["bbox"]) for r in results]
    assert len(keys) == len(set(keys))
