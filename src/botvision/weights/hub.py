"""The Hugging Face Hub's layout: a folder of config.json, model.safetensors and README.md.

Networks for classification are written as timm writes them, so that
``timm.create_model("hf-hub:owner/name", pretrained=True)`` reads them once botvision is imported.
Nothing is ever unpickled.
"""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
from torch import nn

from botvision.errors import BotvisionError
from botvision.files import replacing, write_json
from botvision.weights.file import (
    load_tensors,
    read_description,
    read_tensors,
    save_weights,
    write_tensors,
)
from botvision.weights.hub_config import (
    build_network,
    classifier_config,
    detector_config,
    network_config,
    read_config,
)
from botvision.weights.model_card import IMAGES, model_card, without_folders

_BEST = "best.safetensors"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
HUB = "hf-hub:"
"""What a repository on the Hub is told from a folder by, as timm does."""
_PICKLES = {".bin", ".pth", ".pt", ".ckpt", ".pkl", ".tar"}


def save_pretrained(
    source: nn.Module | str | Path,
    folder: str | Path,
    *,
    labels: list[str] | None = None,
    arguments: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
) -> Path:
    """Write a model as the Hugging Face Hub has it, in place of what the folder holds of one.

    Folders of this machine are left out of what is written; only their last parts stay.

    Args:
        source: A network for classification that ``create_model`` built, ``botify`` perhaps
            changed; or a run folder, or a weights file in one, with whose metrics, recipe, command
            and images the model card is made.
        folder: Where to; made if it is not there.
        labels: Names of the classes of a network.
        arguments: Of ``create_model``, as which timm has recorded those that the network was built
            with; needed where it has not.
        preprocessing: How images were prepared, where it is not as the network's configuration
            says: "input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode".

    Returns:
        The folder.

    Raises:
        ValueError: If the network could not be built from what would be written.
        BotvisionError: If the weights file is none, or the folder cannot be written.
    """
    target = Path(folder)
    if isinstance(source, nn.Module):
        config = network_config(
            source, labels=labels, arguments=arguments, preprocessing=preprocessing or {}
        )
        _make(target)
        description = {"task": "image-classification", **config}
        save_weights(target / WEIGHTS, source, description)
        card = model_card(target.name, description, run=None)
    else:
        if labels or arguments or preprocessing:
            raise ValueError(
                "labels, arguments and preprocessing: expected none beside a weights file, which "
                "describes itself"
            )
        path = Path(source) / _BEST if Path(source).is_dir() else Path(source)
        described = read_description(path)
        # A category may be named like a folder, as Open Images' are.
        kept = ("categories", "classes")
        description = {
            **without_folders(described),
            **{key: described[key] for key in kept if key in described},
        }
        configured = classifier_config if "classes" in described else detector_config
        config = configured(description, path)
        _make(target)
        write_tensors(target / WEIGHTS, read_tensors(path), description)
        _copy_images(path.parent, target)
        card = model_card(target.name, {**description, **config}, run=path.parent)
    write_json(target / CONFIG, config)
    with replacing(target / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")
    return target


def from_pretrained(source: str | Path) -> nn.Module:
    """A network for classification with the weights that ``save_pretrained`` or timm wrote.

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
    """The weights file of a folder or of a repository on the Hub, beside its config.json.

    Args:
        source: As for ``from_pretrained``.

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
    _check_files([path.name for path in folder.iterdir()], str(folder))
    return folder / WEIGHTS


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
        token: Of the Hub; None: the one that ``hf auth login`` stored.
        revision: Branch; None: the main one.
        message: Of the commit.

    Returns:
        Address of the commit.

    Raises:
        BotvisionError: If the folder holds no model or the Hub does not take it.
    """
    path = Path(folder)
    pretrained_file(path)
    names = [name for name in (CONFIG, WEIGHTS, CARD, *IMAGES) if (path / name).exists()]
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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BotvisionError(f"{folder}: expected a folder to write to ({error})") from error


def _copy_images(run: Path, target: Path) -> None:
    for name in IMAGES:
        if (run / name).exists():
            _check_regular(run / name)
            with replacing(target / name) as temporary:
                shutil.copyfile(run / name, temporary)


def _check_regular(path: Path) -> None:
    """A link could have a file of another folder published."""
    if path.is_symlink() or not path.is_file():
        raise BotvisionError(f"{path}: expected a file, got a link or a folder; put the file there")


def _check_files(names: list[str], source: str) -> None:
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
        names = huggingface_hub.HfApi(library_name="botvision").list_repo_files(
            repository, revision=revision
        )
        _check_files(names, HUB + repository)
        files = [
            huggingface_hub.hf_hub_download(repository, name, revision=revision)
            for name in (CONFIG, WEIGHTS)
        ]
    except BotvisionError:
        raise
    except Exception as error:  # the Hub's client has no common error class
        raise _hub_error(repository, error) from error
    return Path(files[-1])


def _hub_error(repository: str, error: Exception) -> BotvisionError:
    reason = " ".join(str(error).split())
    return BotvisionError(f"{HUB}{repository}: {type(error).__name__}: {reason}")
