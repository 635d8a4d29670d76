"""What building a network drags in, in a fresh process."""

import json
import subprocess
import sys

PROGRAM = """
import json, sys, torch, botvision
with torch.device("meta"):
    for name in botvision.list_models():
        botvision.create_model(name)
print(json.dumps(list(sys.modules)))
"""
DETECTORS = ("detection", "data", "training", "predict", "classification", "cli", "recipes")


def test_building_any_model_imports_no_detector():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert not loaded & {f"botvision.{part}" for part in DETECTORS}
    assert not loaded & {"transformers", "faster_coco_eval", "pycocotools", "pydantic"}
