"""What an import drags in, and in which order things may be imported: each in a fresh process."""

import json
import subprocess
import sys

import pytest

DETECTORS = ["botvision.detection", "faster_coco_eval", "pycocotools", "transformers"]


def fresh(code):
    """Run code in a new interpreter, warnings being errors, and return the JSON it prints."""
    program = f"import json, sys\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_the_package_is_cheap():
    loaded = set(fresh("import botvision; print(json.dumps(list(sys.modules)))"))
    assert not loaded & {"torch", "numpy", "timm", "torchvision", "pydantic"}


def test_attention_needs_torch_alone():
    # Blocked, not just absent: an import that is tried and forgiven counts as well.
    unwanted = ["timm", "torchvision", "pydantic", "accelerate", "supervision"]
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in unwanted if name != "timm")
    loaded = fresh(
        blocked
        + "import botvision.attention; print(json.dumps([n for n, m in sys.modules.items() if m]))"
    )
    assert "torch" in loaded
    assert not set(loaded) & set(unwanted)


@pytest.mark.parametrize(
    "imports",
    [
        "import botvision, timm",
        "import timm, botvision",
        # transformers and others ask whether timm is there before they import it.
        "import botvision, importlib.util; importlib.util.find_spec('timm'); import timm",
    ],
)
def test_models_are_registered_in_either_order(imports):
    found = fresh(
        f"{imports}\n"
        "model = timm.create_model('botnet_tiny', num_classes=2)\n"
        "print(json.dumps([type(model).__name__, timm.list_models('botnet50'), list(sys.modules)]))"
    )
    assert found[:2] == ["BoTNet", ["botnet50"]]
    # A backbone serves any detector and so may need none.
    assert not set(found[2]) & set(DETECTORS)
    assert not [name for name in found[2] if name.startswith("botvision.cli")]


def test_unknown_attribute():
    import botvision

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = botvision.nonsense
