"""Fixtures shared by all tests: where the real data is, and small generated cubes."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import settings

from cubecast.sharing import Share

# A loaded machine is slow, not wrong.
# In CI the same examples each time: a new counterexample is found at a desk, not in the way of another change.
settings.register_profile("cubecast", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("cubecast")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The snippets of the README take longest: first of all, so that no worker waits for them at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture(autouse=True)
def _no_log_of_another_test() -> None:
    """The command logs to the stderr of the test that ran it, which is closed in the next one."""
    logging.getLogger("cubecast").handlers.clear()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radar, SST and series data; tests that need it skip where it is absent."""
    root = Path(os.environ.get("CUBECAST_DATA", Path(__file__).parents[1] / "../shared/data")).resolve()
    if not (root / "radar").is_dir():
        pytest.skip(f"real data is absent: no folder {root / 'radar'} (set CUBECAST_DATA)")
    return root


@pytest.fixture(scope="session")
def rain() -> Callable[..., xr.DataArray]:
    """``rain(frames, size=(y, x), missing=())``: blobs of rain that move one cell a step over a 1 km grid."""

    def make(frames: int = 40, *, size: tuple[int, int] = (24, 28), missing: Sequence[int] = ()) -> xr.DataArray:
        y, x = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
        values = np.stack([_blobs(y, x - t, size) for t in range(frames)]).astype(np.float32)
        time = np.datetime64("2020-06-01", "ns") + np.arange(frames) * np.timedelta64(5, "m")
        keep = np.setdiff1d(np.arange(frames), missing)
        metre = {"units": "m"}
        return xr.DataArray(
            values[keep],
            dims=("time", "y", "x"),
            coords={
                "time": time[keep],
                "y": ("y", 1000.0 * np.arange(size[0])[::-1], {"standard_name": "projection_y_coordinate", **metre}),
                "x": ("x", 1000.0 * np.arange(size[1]), {"standard_name": "projection_x_coordinate", **metre}),
            },
            attrs={"units": "mm h-1", "standard_name": "rainfall_rate", "long_name": "rain rate"},
            name="rainfall_rate",
        )

    return make


@pytest.fixture(scope="session")
def together() -> Callable[..., list[Any]]:
    """``together(count, work)``: what ``work(share)`` gave to each of ``count`` threads that share the reading."""

    def run(count: int, work: Callable[[Share], Any]) -> list[Any]:
        said: list[Any] = [None] * count
        meeting = Barrier(count, timeout=60)

        def of(rank: int) -> Any:
            def add(own: np.ndarray) -> np.ndarray:
                said[rank] = own
                meeting.wait()
                total = np.sum(said, axis=0)
                meeting.wait()
                return total

            return work(Share(rank, count, add))

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(of, range(count)))

    return run


def _blobs(y: np.ndarray, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    field = np.zeros(y.shape)
    for i, (cy, cx) in enumerate([(0.25, 0.2), (0.6, 0.7), (0.8, 0.1)]):
        dx = (x - cx * size[1] + size[1] / 2) % size[1] - size[1] / 2
        field += (4.0 + 3.0 * i) * np.exp(-((y - cy * size[0]) ** 2 + dx**2) / (2 * 2.5**2))
    return np.where(field > 0.1, field, 0.0)


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """``serve(folder)``: the address of a web server of its files, which ends with the test."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """pytest shows enough."""

    with ExitStack() as servers:

        def start(folder: Path) -> str:
            server = servers.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))))
            Thread(target=server.serve_forever, daemon=True).start()
            servers.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield start


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that the network and loss tests run on."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)
