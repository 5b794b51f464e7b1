"""Model folders that were changed by accident: refused before their weights are used; and how sources read files."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cubecast
from cubecast.errors import InputError, UsageError
from cubecast.model_folder import MODEL, WEIGHTS
from cubecast.nowcaster import Nowcaster


@pytest.mark.parametrize("what", ["bit flips", "truncations"])
def test_changed_weights(what, tally, model, copy):
    fault, weights, folder = tally(f"{what} in the weights", short=100, full=1000), model / WEIGHTS, copy()
    data = weights.read_bytes()
    for seed in fault:
        rng = np.random.default_rng(seed)
        at = int(rng.integers(len(data)))
        flipped = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
        (folder / WEIGHTS).write_bytes(data[:at] if what == "truncations" else flipped)
        refused(fault, seed, folder)
    (folder / WEIGHTS).write_bytes(data)
    Nowcaster.load(folder)


@pytest.mark.parametrize("what", ["bit flips", "truncations"])
def test_changed_model_json(what, tally, model, copy, rain):
    """What vouches for the weights is not vouched for itself: it is refused, or the forecast stays a forecast."""
    fault, folder = tally(f"{what} in model.json", short=50, full=1000), copy()
    data = (model / MODEL).read_bytes()
    opened = 0
    for seed in fault:
        rng = np.random.default_rng(seed)
        at = int(rng.integers(len(data)))
        flipped = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
        (folder / MODEL).write_bytes(data[:at] if what == "truncations" else flipped)
        try:
            Nowcaster.load(folder)
            opened += 1
            if what == "truncations":
                fault.lost(seed, f"cut at {at}: loaded")
        except (InputError, UsageError):
            continue
        except Exception as error:
            fault.lost(seed, f"byte {at}: {type(error).__name__}: {error}")
    fault.note(f"{opened} were loaded: a change in the log, the period or another number that can be")


def refused(fault: Any, seed: int, folder: Path) -> None:
    try:
        Nowcaster.load(folder)
        fault.lost(seed, "loaded")
    except InputError as error:
        if "were changed or cut" not in str(error):
            fault.lost(seed, f"not by the hash: {error}")


def test_nothing_is_unpickled_or_evaluated():
    """No call of ``torch.load`` or its like, of ``eval`` or ``exec``, no pickle, no unsafe YAML, in any source file."""
    sources = sorted(Path(cubecast.__file__).parent.rglob("*.py"))
    assert len(sources) > 80
    found = [f"{path.name}: {name}" for path in sources for name in names(path) if name in FORBIDDEN]
    assert found == []
    assert "pickle" in names(Path(__file__).with_name("test_malicious.py")), "the search finds what is there"


FORBIDDEN = {
    *("torch.load", "torch.jit.load", "torch.hub", "torch.hub.load", "np.load", "numpy.load", "yaml.load", "eval"),
    *("exec", "pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml.unsafe_load", "yaml.full_load"),
    *("os.system", "os.popen"),
}  # fmt: skip


def names(path: Path) -> set[str]:
    """Modules that a file imports and dotted names that it calls."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            out |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            out |= {str(node.module).partition(".")[0], *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Call):
            out.add(ast.unparse(node.func))
    return out
