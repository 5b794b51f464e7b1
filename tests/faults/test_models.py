"""Model folders that were changed by accident: refused before their weights are used; and how sources read files."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cubecast
from cubecast.errors import InputError
from cubecast.model_folder import MODEL, WEIGHTS
from cubecast.nowcaster import Nowcaster


@pytest.mark.parametrize(
    ("file", "name", "said"),
    [
        (WEIGHTS, "the weights", "were changed or cut"),
        (MODEL, "`model.json`", "was changed|no readable model|another format"),
    ],
)
@pytest.mark.parametrize("what", ["bit flips", "truncations"])
def test_changed_models(what, file, name, said, tally, model, copy):
    fault, path = tally(f"{what} in {name}", short=100, full=1000), copy() / file
    data = path.read_bytes()
    for seed in fault:
        rng = np.random.default_rng(seed)
        at = int(rng.integers(len(data)))
        flipped = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
        path.write_bytes(data[:at] if what == "truncations" else flipped)
        refused(fault, seed, path.parent, said)
    path.write_bytes(data)
    Nowcaster.load(path.parent)


def refused(fault: Any, seed: int, folder: Path, said: str) -> None:
    try:
        Nowcaster.load(folder)
        fault.lost(seed, "loaded")
    except InputError as error:
        if not re.search(said, str(error)):
            fault.lost(seed, f"not before use: {error}")
    except Exception as error:
        fault.lost(seed, f"{type(error).__name__}: {error}")


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
