"""What holds the code together: the layers, cheap imports, sizes that one can read, and what must not be in it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cubecast

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
FILE_LINES = 300
FUNCTION_LINES = 50
"""Without the docstring."""
MAY_PRINT = {"cli.py", "demo.py"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "src" / "cubecast"))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    return lines - ((first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0)


def forbidden(node: ast.AST) -> str | None:
    """What ``node`` does that runs code out of data; None: nothing."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        return next((f"import {m}" for m in modules if m.split(".")[0] in UNPICKLERS), None)
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    if called in {"eval", "exec", "torch.load", "__import__"}:
        return called
    return "allow_pickle" if any(k.arg == "allow_pickle" for k in node.keywords) else None


def test_imports_only_go_down() -> None:
    done = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_cubecast_is_cheap() -> None:
    heavy = "{'torch', 'matplotlib', 'cartopy', 'netCDF4', 'zarr', 'distributed', 'typer'}"
    done = run(sys.executable, "-c", f"import sys, cubecast; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_no_module_hides_a_public_name() -> None:
    """Importing ``cubecast.x`` sets the attribute x of the package, whatever else was to be found there."""
    inside = {p.stem for p in (ROOT / "src" / "cubecast").iterdir()}
    assert not inside & {n for n in cubecast.__all__ if n not in vars(cubecast)}


def test_no_drawer_for_everything() -> None:
    assert not [name(p) for p in SOURCES if p.stem in {"utils", "util", "helpers", "misc", "common"}]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= FILE_LINES, f"{name(path)} has {lines} lines, allowed {FILE_LINES}: make two rooms of it"
    long = {f"{f.name} (line {f.lineno})": length(f) for f in functions(ast.parse(text)) if length(f) > FUNCTION_LINES}
    assert not long, f"{name(path)}: functions of more than {FUNCTION_LINES} lines besides their docstring: {long}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_printing_from_the_library_and_no_code_out_of_data(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    calls = {ast.unparse(n.func): n.lineno for n in nodes if isinstance(n, ast.Call)}
    assert path.name in MAY_PRINT or "print" not in calls, f"{name(path)}, line {calls['print']}: print"
    found = [f"{name(path)}, line {getattr(n, 'lineno', 0)}: {what}" for n in nodes if (what := forbidden(n))]
    assert not found, "; ".join(found)


def test_the_checks_see_what_they_look_for() -> None:
    bad = ["import pickle", "from joblib import load", "eval('1')", "torch.load(f)", "np.load(f, allow_pickle=True)"]
    assert all(any(forbidden(n) for n in ast.walk(ast.parse(b))) for b in bad)
    assert not any(forbidden(n) for n in ast.walk(ast.parse("network.eval(); load_file(f); yaml.safe_load(f)")))
    code = 'def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a\n'
    assert [length(f) for f in functions(ast.parse(code))] == [3]
