"""A tiny data set, a tiny detector's recipe and one trained run, shared by all tests."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

pytest_plugins = ("fixtures.coco", "fixtures.colors", "fixtures.shapes", "fixtures.weights")

# The detector is as narrow as it can be, and every region it looks at is kept as a detection, so
# that a network of four steps still has something to report.
TINY = (
    "model.image_size=64",
    "model.fpn_channels=16",
    "model.box_head_width=32",
    "model.mask_head_channels=16",
    "model.mask_head_layers=1",
    "model.rpn_pre_nms_top_n_train=50",
    "model.rpn_pre_nms_top_n_test=50",
    "model.rpn_post_nms_top_n_train=20",
    "model.rpn_post_nms_top_n_test=20",
    "model.box_batch_size_per_image=8",
    "model.box_detections_per_img=10",
    "model.box_score_thresh=0.0",
    "data.scale_jitter=[0.8, 1.25]",
    "data.flip=0.5",
    "training.epochs=2",
    "training.batch_size=2",
    "training.warmup_steps=2",
    "training.log_every=1",
    "training.evaluate_every=1",
    "training.save_every=1",
    "training.num_workers=0",
)


class Shown:
    """A display that remembers what it was told."""

    def __init__(self, done, total):
        self.begun = (done, total)
        self.notes = []
        self.steps = []
        self.evaluations = []

    def note(self, text):
        assert "\n" not in text
        self.notes.append(text)

    def step(self, figures):
        assert figures.images_per_second > 0
        assert 0 <= figures.waiting <= 1
        self.steps.append((figures.step, figures.losses))

    @contextlib.contextmanager
    def evaluating(self):
        yield lambda done, total: None

    def evaluated(self, epoch, metrics, *, best):
        self.evaluations.append((epoch, metrics, best))


class Displays(list):
    """``display=`` of the loop; the displays it made, in order."""

    @contextlib.contextmanager
    def __call__(self, done, total, headlines):
        self.append(Shown(done, total))
        yield self[-1]


@pytest.fixture
def display():
    return Displays()


@pytest.fixture(scope="session")
def tiny():
    """Overrides that make the demo's recipe tiny."""
    return TINY


@pytest.fixture(scope="session")
def handwriting(tmp_path_factory):
    """A COCO folder of 8 training and 6 validation scenes of 64 pixels; read only."""
    from botvision.datasets.handwriting import write_handwriting

    folder = tmp_path_factory.mktemp("data") / "handwriting"
    write_handwriting(folder, train=8, val=6, size=64, progress=lambda done, total: None)
    # Ids with gaps, so that a label that is taken for an id shows.
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["id"] = 10 * category["id"] + 3
        for annotation in content["annotations"]:
            annotation["category_id"] = 10 * annotation["category_id"] + 3
        path.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def make_recipe(handwriting):
    """A function of overrides that gives the tiny recipe on the tiny data."""
    from botvision.recipes.reading import read_recipe

    def make(*overrides, data=handwriting):
        return read_recipe("demo", [*TINY, f"data.folder={json.dumps(str(data))}", *overrides])

    return make


@pytest.fixture(scope="session")
def trained_run(make_recipe, tmp_path_factory):
    """Folder of a finished run of the tiny recipe: 2 epochs of 4 steps; read only.

    It was trained in one thread: sums over another number differ in their last bits.
    """
    import torch

    from botvision.recipes.running import train_recipe
    from botvision.training.run_folder import RunFolder

    path = tmp_path_factory.mktemp("runs") / "trained"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_recipe(make_recipe(), path, display=Displays())
    torch.set_num_threads(threads)
    return RunFolder(path)


@pytest.fixture
def undrawn(monkeypatch):
    """Runs leave empty files for charts, whose drawing costs more than all the rest of them."""
    import botvision.tasks.classification.training
    import botvision.tasks.detection.training
    from botvision.training import loop

    def leave_empty(*arguments):
        for path in (each for each in arguments if isinstance(each, Path)):
            path.touch()

    for module, names in {
        loop: ["save_figure", "draw_attention_health"],
        botvision.tasks.detection.training: ["draw_charts", "draw_statistics"],
        botvision.tasks.classification.training: [
            *("draw_calibration", "draw_confusion", "draw_labels", "draw_per_class")
        ],
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, leave_empty)


@pytest.fixture
def run_copy(trained_run, tmp_path):
    """The finished run, to be spoilt."""
    path = tmp_path / "copied run"
    shutil.copytree(trained_run.path, path)
    return type(trained_run)(path)


@pytest.fixture(scope="session")
def predictor(trained_run):
    import botvision

    return botvision.load(trained_run.best)


@pytest.fixture(scope="session")
def val_image(handwriting):
    """Path of a validation scene."""
    return handwriting / "images" / "val_000000.jpg"


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs ``botvision`` in this process; gives exit status, standard output and error."""
    from botvision.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["botvision", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def command():
    """Runs ``botvision`` in a process of its own, as a user does."""
    import torch

    # Sums over another number of threads differ in their last bits.
    threads = str(torch.get_num_threads())

    def run(*arguments, cwd=None, check=False, timeout=120):
        done = subprocess.run(
            [sys.executable, "-c", "from botvision.cli import main; main()", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def tree():
    """A function that gives a folder's files and their bytes, to see what a command touched."""

    def read(folder: Path):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }

    return read


class Forks:
    """Copies of this process that do some work, as the processes of one run.

    They begin with everything imported, which makes them a hundred times cheaper than commands.
    """

    def __init__(self, work, count, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("fork")
        self.outputs = [folder / f"output{rank}.txt" for rank in range(count)]
        self.processes = [
            context.Process(target=_as_rank, args=(work, rank, count, port, self.outputs[rank]))
            for rank in range(count)
        ]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
            for process in self.processes:
                process.start()

    def wait(self, timeout=600):
        """Exit codes; what was printed stays in ``outputs``."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.kill()
        return codes

    def kill(self):
        """Kill what is left of them, and the processes that they started."""
        for process in self.processes:
            if process.is_alive():
                for own in self.children(process):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(own, signal.SIGKILL)
                process.kill()
                process.join()

    def children(self, process):
        """Ids of the processes that one of them started."""
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            return [int(each) for each in path.read_text().split()]
        except OSError:  # it has ended
            return []

    def text(self, rank=0):
        return self.outputs[rank].read_text()


def _as_rank(work, rank, count, port, output):
    import torch
    from accelerate.state import AcceleratorState, GradientState, PartialState

    os.setpgid(0, 0)  # as a terminal does with a command
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    for state in (AcceleratorState, GradientState, PartialState):
        state._shared_state.clear()
    if count > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        # torchrun says so too.
        there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        os.environ.update({name: str(value) for name, value in {**own, **there}.items()})
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    work()


@pytest.fixture
def forked(tmp_path_factory):
    """Starts work in copies of this process; they share a run where there are several."""
    started = []

    def start(work, count=1):
        started.append(Forks(work, count, tmp_path_factory.mktemp("forks")))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def forked_command(forked):
    """Starts ``botvision`` in a copy of this process, or in several that share a run."""
    from botvision.cli import main

    def start(*arguments, count=1):
        def work():
            sys.argv = ["botvision", *map(str, arguments)]
            main()

        return forked(work, count)

    return start
