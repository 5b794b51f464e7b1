"""A saved model on disk: weights.safetensors, model.json with their SHA-256, config.yaml. Nothing is unpickled."""

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

FORMAT = 1
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
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return folder


def read_model(directory: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What model.json says and the tensors, whose SHA-256 is checked before they are parsed.

    Args:
        directory: a folder, or the name of a shipped model.

    Raises:
        InputError: no model there, a format that is not known, or weights that were changed or cut.
    """
    folder = model_path(directory)
    try:
        about = json.loads(_content(folder / MODEL))
        weights = _content(folder / WEIGHTS)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"no readable model in {folder}",
            found=str(error),
            allowed=f"a folder with {MODEL} and {WEIGHTS}",
            remedy="make one with cubecast train -o FOLDER",
        ) from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"model in {folder}", found="another format", allowed=f"format {FORMAT}")
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


def _content(path: Path) -> bytes:
    """The bytes of a regular file: a device or a pipe in its place may have no end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is no file")
    return path.read_bytes()
