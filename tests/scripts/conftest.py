"""Scripts are files, not modules of a package: they are loaded by their path, and find each other beside them."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


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
