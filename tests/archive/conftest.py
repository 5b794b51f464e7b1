"""An archive of ten frames, two models, and a real cluster of two worker processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xarray as xr
from distributed import LocalCluster

from cubecast.config import Config
from cubecast.nowcaster import Nowcaster
from cubecast.write import write_cube

SMALL = {"history": 3, "horizon": 2, "epochs": 1, "hidden_channels": [4], "patch": 4, "crop": None, "precision": "fp32"}


@pytest.fixture(scope="session")
def models(rain: Callable[..., xr.DataArray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one`` and ``other``: folders of models, of which the other one makes ensembles."""
    folder = tmp_path_factory.mktemp("models")
    Nowcaster(**SMALL, coordinates="lagrangian").fit(rain(40)).save(folder / "one")
    ensemble = Config.build({"loss": {"kind": "crps"}}, **SMALL, noise_channels=2, coordinates="lagrangian")
    Nowcaster(ensemble).fit(rain(40)).save(folder / "other")
    return folder


@pytest.fixture(scope="session")
def model(models: Path) -> Path:
    return models / "one"


@pytest.fixture
def archive(rain: Callable[..., xr.DataArray], tmp_path: Path) -> Path:
    """A folder of ten files, one frame each, at 00:00, 00:05, ..., of which the one at 00:20 is missing."""
    folder = tmp_path / "in"
    folder.mkdir()
    cube = rain(10, missing=[4])
    for i in range(len(cube)):
        write_cube(cube[i : i + 1], folder / f"rain_{str(cube.time.values[i])[11:16].replace(':', '')}.nc")
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as made:
        yield made
