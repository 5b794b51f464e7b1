"""A saved model on disk: weights.safetensors, model.json with their SHA-256 and its own, config.yaml; no pickles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cubecast.atomic import atomic_path, make_folder
from cubecast.errors import InputError
from cubecast.shipped import model_path

FORMAT = 2
MODEL, WEIGHTS, SETTINGS = "model.json", "weights.safetensors", "config.yaml"


def write_model(
    directory: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], *, settings: str
) -> Path:
    """Write a model folder; each file is whole or the old one, and model.json, which vouches for the weights, is last.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    folder = Path(directory)
    make_folder(folder)
    weights = save(dict(tensors))
    record = {
        "format": FORMAT,
        "cubecast": version("cubecast"),
        "torch": str(torch.__version__),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **about,
    }
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(weights)
    with atomic_path(folder / SETTINGS) as temporary:
        temporary.write_text(settings, encoding="utf-8")
    with atomic_path(folder / MODEL) as temporary:
        temporary.write_text(seal(record), encoding="utf-8")
    return folder


def seal(record: Mapping[str, Any]) -> str:
    """The text of model.json: a record, and the SHA-256 of all that it says."""
    return json.dumps({**record, "sha256": _digest(record)}, indent=1)


def read_model(directory: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What model.json says and the tensors; the SHA-256 of both are checked before anything is made of them.

    Args:
        directory: a folder, or the name of a shipped model.

    Raises:
        InputError: no model there, a format that is not known, or one that was changed or cut.
    """
    folder = model_path(directory)
    try:
        about = json.loads(_content(folder / MODEL))
        sealed = isinstance(about, dict) and about.pop("sha256", None) == _digest(about)
        weights = _content(folder / WEIGHTS)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"no readable model in {folder}",
            found=str(error),
            allowed=f"a folder with {MODEL} and {WEIGHTS}",
            remedy="make one with cubecast train -o FOLDER",
        ) from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        remedy = "train it again, or take the version of cubecast that made it"
        raise InputError(f"model in {folder}", found="another format", allowed=f"format {FORMAT}", remedy=remedy)
    if not sealed:
        raise InputError(f"{MODEL} in {folder} was changed", found="another SHA-256", remedy="restore the folder")
    if hashlib.sha256(weights).hexdigest() != about.get("weights_sha256"):
        raise InputError(
            f"weights in {folder} were changed or cut", found="another SHA-256", remedy="restore the folder"
        )
    try:
        return about, load(weights)
    except SafetensorError as error:
        raise InputError(f"weights in {folder}", found=str(error), allowed="safetensors") from None


def restore_network(build: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network that ``build`` makes, with these weights; its shapes are compared before it takes memory.

    Raises:
        ValueError: they are of another network.
    """
    with torch.device("meta"):
        expected = {k: v.shape for k, v in build().state_dict().items()}
    if expected != {k: v.shape for k, v in tensors.items()}:
        raise ValueError(f"the weights are not of the network that {MODEL} describes")
    network = build()
    network.load_state_dict(tensors)
    return network


def _digest(record: Mapping[str, Any]) -> str:
    """The same whatever the layout of the file; Python writes numbers so that they are read back to the last bit."""
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _content(path: Path) -> bytes:
    """The bytes of a regular file: a device or a pipe in its place may have no end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is no file")
    return path.read_bytes()
