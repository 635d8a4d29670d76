"""The README's commands and examples run as they stand, on less data."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- tested -->\n```(bash|python)\n(.*?)```", re.DOTALL)

# What makes a full run small enough for a test; nothing else of a command is changed.
SMALLER = {
    "--train 2400 --val 200": "--train 16 --val 4",
    "--name first": "--name first --set training.epochs=1 --set training.workers=0",
}


def test_every_block_of_the_readme_runs(tmp_path):
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert [language for language, _ in blocks] == ["bash", *["python"] * 4]
    binaries = Path(sys.executable).parent
    for language, text in blocks:
        if language == "bash":
            for full, small in SMALLER.items():
                assert full in text
                text = text.replace(full, small)
            command = ["bash", "-euc", f'PATH="{binaries}:$PATH"\n{text}']
        else:
            command = [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    run = tmp_path / "runs" / "instance_segmentation" / "first"
    for written in (run / "best.safetensors", tmp_path / "attention.png", tmp_path / "predictions"):
        assert written.exists()


def test_the_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
