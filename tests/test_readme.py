"""The README's commands and examples run as they stand, on less data."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from botvision.cli import main

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- tested -->\n```(bash|python)\n(.*?)```", re.DOTALL)

# Changes that make a full run small enough for a test.
SMALLER = {
    "--train 2400 --val 200": "--train 16 --val 4",
    "--name first": "--name first --set training.epochs=1 --set training.num_workers=0",
    "botvision models\n": "botvision models botnet50\n",
}


def test_every_block_of_the_readme_runs(forked, tmp_path, monkeypatch):
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert [language for language, _ in blocks] == ["bash", *["python"] * 5]
    (_, text), *examples = blocks
    for full, small in SMALLER.items():
        assert full in text
        text = text.replace(full, small)
    monkeypatch.chdir(tmp_path)
    first, *others = text.splitlines()
    # The first of each as a user runs them, the others in copies of this process, which has
    # imported already what they need.
    _, alone, *_ = examples
    programs = [first, shlex.join([sys.executable, "-c", alone[1]])]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for program in programs:
        done = subprocess.run(
            ["bash", "-euc", program],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{program}\n{done.stdout}\n{done.stderr}"
    for line in others:
        run_in_a_copy(forked, lambda line=line: run_command(line))
    for _, example in (each for each in examples if each is not alone):
        run_in_a_copy(forked, lambda example=example: exec(example, {"__name__": "__main__"}))
    run = tmp_path / "runs" / "instance_segmentation" / "first"
    for written in (run / "best.safetensors", tmp_path / "attention.png", tmp_path / "predictions"):
        assert written.exists()


def run_command(line):
    program, *sys.argv[1:] = shlex.split(line)
    assert program == "botvision"
    main()


def run_in_a_copy(forked, work):
    copy = forked(work)
    assert copy.wait() == [0], copy.text()


def test_the_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
