"""A place to watch: real frames on disk, a small model, and a clock that stands until it is told to move."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubecast.nowcaster import Nowcaster
from cubecast.watch import Outbox, Rules, Watcher
from cubecast.write import read_forecast, write_cube

STEP = 300.0
HISTORY, HORIZON = 3, 2


@pytest.fixture(scope="session")
def watch_model(rain: Callable[..., xr.DataArray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of 5-minute rain: history 3, horizon 2."""
    folder = tmp_path_factory.mktemp("watch") / "model"
    small = {"history": HISTORY, "horizon": HORIZON, "hidden_channels": [4], "patch": 4, "crop": 16, "epochs": 1}
    return Nowcaster(**small).fit(rain(24, size=(16, 16))).save(folder)


@pytest.fixture(scope="session")
def loaded(watch_model: Path) -> Nowcaster:
    return Nowcaster.load(watch_model)


class Site:
    """Frame ``i`` is of ``i`` steps after 2020-06-01; the clock starts after the last of 60."""

    def __init__(self, root: Path, model: Nowcaster, cube: xr.DataArray) -> None:
        self.frames, self.out, self.model, self.cube = root / "in", root / "out", model, cube
        self.frames.mkdir()
        self.start = float(cube.time.values[0].astype("datetime64[s]").astype(int))
        self.now = self.start + 60 * STEP
        self.mtime = 1_600_000_000

    def time(self, i: float) -> np.datetime64:
        return self.cube.time.values[0] + np.timedelta64(int(i * STEP), "s")

    def at(self, i: float) -> None:
        """Set the clock to a minute after frame ``i``."""
        self.now = self.start + i * STEP + 60

    def path(self, i: float, suffix: str = "") -> Path:
        return self.frames / f"rain_{str(self.time(i)).replace(':', '')[:17]}{suffix}.nc"

    def put(
        self, *numbers: int, suffix: str = "", change: Callable[[xr.DataArray], xr.DataArray] | None = None
    ) -> None:
        """Write frames, each into a file of its own that is newer than those before."""
        for i in numbers:
            cube = self.cube.isel(time=[i])
            write_cube(cube if change is None else change(cube), self.path(i, suffix))
            self.mtime += 1
            os.utime(self.path(i, suffix), (self.mtime, self.mtime))

    def watch(self, *, once: bool = False, link: Any = os.symlink, **rules: Any) -> Watcher:
        """A watcher that has begun; `cycle` it."""
        built = Rules.build(self.model.step, HORIZON, **{"stale": 1e9, **rules})
        watcher = Watcher(
            self.frames, self.model, Outbox(self.out, link), built, once=once, pattern="*.nc", clock=lambda: self.now
        )
        self.out.mkdir(exist_ok=True)
        watcher.start()
        return watcher

    def settle(self, watcher: Watcher, seconds: float = 1.0) -> list[str]:
        """Two looks; the names that were made."""
        made = watcher.cycle()
        self.now += seconds
        return [p.name for p in made + watcher.cycle()]

    def status(self) -> dict[str, Any]:
        return json.loads((self.out / "status.json").read_text())

    def made(self) -> list[float]:
        """The numbers of the frames that a forecast is there after."""
        found = [read_forecast(p).forecast_reference_time.values[0] for p in sorted(self.out.glob("nowcast_*.nc"))]
        return [float((t - self.time(0)) / np.timedelta64(300, "s")) for t in found]

    def forecast(self, i: float) -> xr.Dataset:
        name = f"nowcast_{str(self.time(i).astype('datetime64[s]')).replace('-', '').replace(':', '')}.nc"
        return read_forecast(self.out / name)


@pytest.fixture
def site(tmp_path: Path, loaded: Nowcaster, rain: Callable[..., xr.DataArray]) -> Site:
    return Site(tmp_path, loaded, rain(60, size=(16, 16)))
