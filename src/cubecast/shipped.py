"""Models that come with the package: used where none is given."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from cubecast.errors import InputError

DEFAULT = "radar-5min"
SHIPPED = {DEFAULT: "radar rain every 5 minutes on a grid of 1 to 2 km"}
"""Their names, and what they are for; each has a model card beside its weights."""
CELLS_KM = (0.7, 2.8)
"""Cells that are that near to those they were trained on; others get a warning."""


def model_path(model: str | Path) -> Path:
    """The folder of a model: that of a shipped one for its name, unless there is a folder of this name.

    Raises:
        InputError: the name of a shipped model that is not in this installation.
    """
    if str(model) not in SHIPPED or Path(model).is_dir():
        return Path(model)
    path = Path(str(files("cubecast") / "models" / str(model)))
    if not path.is_dir():
        raise InputError(
            f"the model {model} is not in this installation",
            found=f"no folder {path}",
            remedy="train one with cubecast train -o FOLDER and give its folder (--model FOLDER)",
        )
    return path
