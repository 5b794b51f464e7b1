"""What a fault is: so many seeded tries, what was lost in them, and one table of all.

The short numbers run with all other tests; `make faults` (``--faults=full``) runs the full ones and writes
build/faults.json.
"""

import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import xarray as xr

from cubecast.nowcaster import Nowcaster
from cubecast.write import write_cube

SMALL = {"history": 3, "horizon": 2, "hidden_channels": [4], "patch": 4, "crop": 16, "epochs": 1}
_PROPERTY = "fault"
_SHOWN = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", choices=["short", "full"], default="short", help="how many tries of each fault")


class Tally:
    """The tries of one fault; iterate to get their seeds.

    Args:
        name: the fault, for the table.
        tries: how many.
    """

    def __init__(self, name: str, tries: int) -> None:
        self.name, self.tries, self.losses, self.notes = name, tries, [], []

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.tries))

    def lost(self, seed: object, why: object) -> None:
        """A try that did not end as it must."""
        self.losses.append(f"{seed}: {why}")

    def note(self, text: str) -> None:
        """What was seen besides."""
        self.notes.append(text)

    def to_json(self, seconds: float) -> dict[str, object]:
        lost = len({loss.partition(":")[0] for loss in self.losses})
        return {
            "fault": self.name, "tries": self.tries, "survived": self.tries - lost, "lost": lost,
            "reasons": self.losses, "notes": self.notes, "seconds": round(seconds, 1),
        }  # fmt: skip


@pytest.fixture
def tally(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Callable]:
    """``tally(name, short=..., full=...)``: the `Tally` of this test; the test fails when a try is lost."""
    begun, made = time.perf_counter(), []

    def make(name: str, *, short: int, full: int) -> Tally:
        is_full = request.config.getoption("--faults", "short") == "full"
        made.append(Tally(name, full if is_full else short))
        return made[-1]

    yield make
    for one in made:
        record_property(_PROPERTY, one.to_json(time.perf_counter() - begun))
    losses = [loss for one in made for loss in one.losses]
    if losses:
        more = f" and {len(losses) - _SHOWN} more" if len(losses) > _SHOWN else ""
        pytest.fail("; ".join(losses[:_SHOWN]) + more, pytrace=False)


@pytest.fixture(scope="session")
def context() -> BaseContext:
    """Processes are forked from one that has imported all and run nothing."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["cubecast.cli", "cubecast.nowcaster", "cubecast.watch", "cubecast.write", "zarr"])
    return made


@pytest.fixture(scope="session")
def launch(context: BaseContext) -> Callable[..., BaseProcess]:
    """``launch(code, **names)``: a process that runs ``code`` with these names."""

    def start(code: str, **names: object) -> BaseProcess:
        process = context.Process(target=exec, args=(code, names))  # type: ignore[attr-defined]
        process.start()
        return process

    return start


@pytest.fixture
def memory_disk() -> Iterator[Path]:
    """A folder in memory: what ends with a process does not depend on a disk, and a disk takes its time to sync."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def radar(rain: Callable[..., xr.DataArray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 40 frames of rain as `write_cube` writes it."""
    path = tmp_path_factory.mktemp("faults") / "radar.nc"
    write_cube(rain(40), path)
    return path


@pytest.fixture(scope="session")
def model(rain, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tampered") / "model"
    return Nowcaster(**SMALL).fit(rain(40), directory=folder).save(folder)


@pytest.fixture
def copy(model, memory_disk) -> Callable[[], Path]:
    """A fresh copy of the model folder."""

    def make() -> Path:
        shutil.rmtree(memory_disk / "copy", ignore_errors=True)
        return Path(shutil.copytree(model, memory_disk / "copy"))

    return make


@pytest.fixture(scope="session", autouse=True)
def linux() -> None:
    """Signals, limits of memory and small disks are tried as Linux has them."""
    if sys.platform != "linux":
        pytest.skip("faults are tried on Linux")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, and its file."""
    reports = [r for found in terminalreporter.stats.values() for r in found]
    rows = [v for r in reports if getattr(r, "when", "") == "teardown" for k, v in r.user_properties if k == _PROPERTY]
    if not rows:
        return
    terminalreporter.section("faults")
    wide = max(len(str(row["fault"])) for row in rows)
    terminalreporter.line(f"{'fault':{wide}}  tries  survived  lost  seconds")
    for row in rows:
        line = f"{row['fault']:{wide}}  {row['tries']:5}  {row['survived']:8}  {row['lost']:4}  {row['seconds']:7}"
        terminalreporter.line(line)
    if config.getoption("--faults", "short") == "full":
        path = Path("build/faults.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
