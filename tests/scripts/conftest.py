"""Scripts are files, not modules of a package: they are loaded by their path, and find each other beside them."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import typer


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The script that the test file is named after."""
    name, folder = Path(request.path).stem.removeprefix("test_"), Path(__file__).parents[2] / "scripts"
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)  # where Python looks first when a script is run
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def run(script: ModuleType) -> Callable[..., int]:
    """``run(*words)``: the exit code of the script with a command line."""
    program = script.app if hasattr(script, "app") else partial(typer.run, script.main)

    def call(*words: object) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, words)])
            with pytest.raises(SystemExit) as end:
                program()
        return int(end.value.code or 0)

    return call
