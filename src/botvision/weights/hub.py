"""The Hugging Face Hub's layout: a folder of config.json, model.safetensors and README.md.

Networks for classification are written as timm writes them, so that
``timm.create_model("hf-hub:owner/name", pretrained=True)`` reads them once botvision is imported.
Nothing is ever unpickled.
"""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
from torch import Tensor, nn

from botvision.errors import BotvisionError
from botvision.files import replacing, write_json
from botvision.models.names import HUB
from botvision.weights.file import Description, load_tensors, read_tensors, write_tensors
from botvision.weights.hub_config import build_network, read_config
from botvision.weights.model_card import FIGURES

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_PICKLES = {".bin", ".pth", ".pt", ".ckpt", ".pkl", ".tar"}


def write_pretrained(
    folder: Path,
    tensors: dict[str, Tensor],
    description: Description,
    config: dict[str, Any],
    card: str,
    run: Path | None = None,
) -> None:
    """Write a model as the Hugging Face Hub has it, in place of what the folder holds of one.

    Args:
        folder: Folder to write to; made if it is missing.
        tensors: Weights by name.
        description: Description for the weights file.
        config: Content of config.json.
        card: Text of the model card.
        run: Run folder whose figures are copied; None: no figures.

    Raises:
        BotvisionError: If the folder or a file cannot be written, or a figure is a link.
    """
    figures = [run / name for name in FIGURES if (run / name).exists()] if run else []
    for figure in figures:
        _check_regular(figure)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BotvisionError(f"{folder}: expected a folder to write to ({error})") from error
    write_tensors(folder / WEIGHTS, tensors, description)
    for figure in figures:
        with replacing(folder / figure.name) as temporary:
            shutil.copyfile(figure, temporary)
    write_json(folder / CONFIG, config)
    with replacing(folder / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")


def from_pretrained(source: str | Path) -> nn.Module:
    """Return a classifier with the weights that ``save_pretrained`` or timm wrote.

    Args:
        source: A folder, or "hf-hub:owner/name" or "hf-hub:owner/name@revision", which is fetched.

    Returns:
        The network in evaluation mode; its ``pretrained_cfg`` holds label names and preprocessing.

    Raises:
        BotvisionError: If there is none, it is pickled, or it is a detector's, which
            ``botvision.load`` reads.
    """
    path = pretrained_file(source)
    config = path.with_name(CONFIG)
    model = build_network(read_config(config), config)
    load_tensors(model, read_tensors(path), path)
    return model.eval()


def pretrained_file(source: str | Path) -> Path:
    """Return the weights file of a folder or of a repository on the Hub, beside its config.json.

    Args:
        source: Folder or repository, see ``from_pretrained``.

    Raises:
        BotvisionError: If there is none, or weights that would have to be unpickled.
    """
    text = str(source)
    if text.startswith(HUB):
        repository, _, revision = text.removeprefix(HUB).partition("@")
        return _fetch(repository, revision or None)
    folder = Path(source)
    if not folder.is_dir():
        raise BotvisionError(
            f"{folder}: no such folder; a repository on the Hugging Face Hub is '{HUB}owner/name'"
        )
    _check_files([path.name for path in folder.iterdir()], source)
    return folder / WEIGHTS


def hub_config(address: str) -> tuple[Path, dict[str, Any]]:
    """Fetch the config.json of a repository on the Hub, and nothing else.

    Args:
        address: "hf-hub:owner/name" or "hf-hub:owner/name@revision".

    Returns:
        The file and its content.

    Raises:
        BotvisionError: If it cannot be fetched, or is not that of a network that timm builds.
    """
    repository, _, revision = address.removeprefix(HUB).partition("@")
    try:
        path = Path(huggingface_hub.hf_hub_download(repository, CONFIG, revision=revision or None))
    except Exception as error:  # the Hub's client has no common error class
        raise _hub_error(repository, error) from error
    return path, read_config(path)


def push_to_hub(
    folder: str | Path,
    repository: str,
    *,
    private: bool = True,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload a model with botvision",
) -> str:
    """Upload what ``save_pretrained`` wrote, and nothing else that lies in the folder.

    Args:
        folder: The folder.
        repository: "owner/name"; made if it is not there.
        private: Whether a new repository is private.
        token: Token of the Hub; None: the one that ``hf auth login`` stored.
        revision: Branch; None: the main one.
        message: Message of the commit.

    Returns:
        Address of the commit.

    Raises:
        BotvisionError: If the folder holds no model or the Hub does not take it.
    """
    path = Path(folder)
    pretrained_file(path)
    names = [name for name in (CONFIG, WEIGHTS, CARD, *FIGURES) if (path / name).exists()]
    for name in names:
        _check_regular(path / name)
    try:
        api = huggingface_hub.HfApi(token=token, library_name="botvision")
        made = api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            folder_path=path,
            allow_patterns=names,
            revision=revision,
            commit_message=message,
        )
    except Exception as error:  # the Hub's client has no common error class
        raise _hub_error(repository, error) from error
    return str(commit.commit_url)


def _check_regular(path: Path) -> None:
    """A link could have a file of another folder published."""
    if path.is_symlink() or not path.is_file():
        raise BotvisionError(f"{path}: expected a file, got a link or a folder; put the file there")


def _check_files(names: list[str], source: str | Path) -> None:
    missing = [name for name in (WEIGHTS, CONFIG) if name not in names]
    if not missing:
        return
    pickled = sorted(name for name in names if Path(name).suffix in _PICKLES)
    if WEIGHTS in missing and pickled:
        raise BotvisionError(
            f"{source}: expected {WEIGHTS}, got {pickled[0]}, which would have to be unpickled and "
            "could execute anything; ask for weights in safetensors"
        )
    raise BotvisionError(f"{source}: expected {WEIGHTS} and {CONFIG}, got no {missing[0]}")


def _fetch(repository: str, revision: str | None) -> Path:
    try:
        api = huggingface_hub.HfApi(library_name="botvision")
        names = api.list_repo_files(repository, revision=revision)
        _check_files(names, HUB + repository)
        huggingface_hub.hf_hub_download(repository, CONFIG, revision=revision)
        return Path(huggingface_hub.hf_hub_download(repository, WEIGHTS, revision=revision))
    except BotvisionError:
        raise
    except Exception as error:  # the Hub's client has no common error class
        raise _hub_error(repository, error) from error


def _hub_error(repository: str, error: Exception) -> BotvisionError:
    reason = " ".join(str(error).split())
    return BotvisionError(f"{HUB}{repository}: {type(error).__name__}: {reason}")
