"""Models that come with the package: used where none is given."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SHIPPED = {"radar-5min": "rain rates of radar every 5 minutes, 1 to 2 km"}
"""Their names, and what they are for; each has a model card beside its weights."""


def model_path(model: str | Path) -> Path:
    """The folder of a model: that of a shipped one for its name, unless there is a folder of this name."""
    if str(model) in SHIPPED and not Path(model).is_dir():
        return Path(str(files("cubecast") / "models" / str(model)))
    return Path(model)
