"""Forecasts within a memory: the same in tiles as whole, streamed into files, or a plain no."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from cubecast import tiling
from cubecast.config import Config
from cubecast.errors import InputError, UsageError
from cubecast.nowcaster import Nowcaster
from cubecast.sources.synthetic import generate_rain
from cubecast.tiling import Tiling
from cubecast.write import read_forecast, write_forecast

ROUNDING = 1e-3
"""Of points in float32, in mm/h: a tenth of what radar composites are packed to."""
SIZE = (300, 270)
AT_ONCE, IN_TILES = "1GB", "514MB"
SMALL = {"history": 3, "horizon": 2, "hidden_channels": [4, 4], "patch": 2, "crop": 32, "epochs": 1}


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    cube = generate_rain(frames=6, size=SIZE, seed=3, wet_fraction=0.4)
    cube[2:, 100:140, 60:130] = np.nan
    return cube


@pytest.fixture(scope="module")
def make(rain: Callable[..., xr.DataArray]) -> Callable[..., Nowcaster]:
    """``make(**settings)``: a model with weights that do something, in float32: bf16 rounds otherwise in each shape."""

    def made(**settings: object) -> Nowcaster:
        loss = {"loss": {"kind": "crps" if settings.get("noise_channels") else "mse"}}
        model = Nowcaster(Config.build(loss, precision="fp32", **SMALL, **settings)).fit(rain(30))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model

    return made


@pytest.fixture(scope="module")
def model(make: Callable[..., Nowcaster]) -> Nowcaster:
    return make(coordinates="lagrangian")


def largest(a: xr.Dataset, b: xr.Dataset) -> float:
    """Difference, where rates are small in mm h-1, else as a part of the rate."""
    xr.testing.assert_allclose(a.isnull(), b.isnull())
    return float((abs(a["rainfall_rate"] - b["rainfall_rate"]) / (1 + abs(b["rainfall_rate"]))).max())


@pytest.mark.parametrize(
    ("settings", "ask", "memory"),
    [
        ({"coordinates": "lagrangian"}, {}, IN_TILES),
        ({"coordinates": "eulerian", "noise_channels": 2}, {"members": 3}, "525MB"),
    ],
    ids=str,
)
def test_tiles_are_the_whole_but_for_rounding(
    make: Callable[..., Nowcaster], cube: xr.DataArray, settings: dict, ask: dict, memory: str
) -> None:
    model = make(**settings)
    seen: list[int | None] = []

    def progress(items, description, total):  # as rich's: a generator that is asked for one item after the other
        for item in items:
            seen.append(total)
            yield item

    at = cube.time.values[[3, 5]]
    whole = model.predict(cube, at=at, memory=AT_ONCE, **ask)
    tiled = model.predict(cube, at=at, memory=memory, progress=progress, **ask)
    assert seen
    assert len(seen) == seen[0] > 2 * 4, "more than four tiles for each reference time"
    assert tiled["rainfall_rate"].dims == whole["rainfall_rate"].dims
    assert largest(tiled, whole) < ROUNDING < float(whole["rainfall_rate"].max())
    assert tiled.isnull()["rainfall_rate"].any()


def test_what_does_not_fit_is_streamed_into_the_file(
    model: Nowcaster, cube: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.predict(cube, memory=AT_ONCE)
    monkeypatch.setattr(tiling, "choose_tiling", lambda run, count, memory: Tiling(96, 10**6, lazy=True))
    tiled = model.predict(cube)
    assert tiled["rainfall_rate"].chunks[-2] == (96, 96, 96, 12)
    for name in ("out.nc", "out.zarr"):
        write_forecast(tiled, tmp_path / name)
        assert largest(read_forecast(tmp_path / name), whole) < ROUNDING


def test_nothing_observed_is_an_error_when_it_is_computed_and_leaves_no_file(
    model: Nowcaster, cube: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="is all missing"):
        model.predict(cube.where(False), memory=IN_TILES)
    monkeypatch.setattr(tiling, "choose_tiling", lambda run, count, memory: Tiling(96, 10**6, lazy=True))
    lazy = model.predict(cube.where(False))
    with pytest.raises(InputError, match="is all missing"):
        write_forecast(lazy, tmp_path / "out.nc")
    assert not list(tmp_path.iterdir())


def test_tiles_whose_air_comes_from_far_away_are_cut(
    model: Nowcaster, cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.predict(cube, memory=AT_ONCE)
    monkeypatch.setattr(tiling, "choose_tiling", lambda run, count, memory: Tiling(128, 200 * 200, lazy=False))
    assert largest(model.predict(cube), whole) < ROUNDING


def test_less_memory_makes_smaller_tiles_until_it_says_no(model: Nowcaster, cube: xr.DataArray) -> None:
    run = model._run(cube)
    sides = []
    for memory in (AT_ONCE, "518MB", "513MB"):
        chosen = tiling.choose_tiling(run, 1, memory=tiling.parse_memory(memory))
        sides.append(chosen.side if chosen else None)
    assert sides[0] is None
    assert sides[1] > sides[2] >= tiling.SMALLEST
    with pytest.raises(UsageError, match=r"memory: found 0.5 GB; allowed: 0.52 GB or more .* on a grid of 300 x 270"):
        model.predict(cube, memory="500MB")
    assert largest(model.predict(cube, memory="0.52GB"), model.predict(cube, memory=AT_ONCE)) < ROUNDING
    with pytest.raises(UsageError, match="memory: found 'much'"):
        model.predict(cube, memory="much")


def test_many_forecasts_that_do_not_fit_together_are_lazy_each_on_its_own(model: Nowcaster, cube: xr.DataArray) -> None:
    chosen = tiling.choose_tiling(model._run(cube), 1000, memory=10**9)
    assert chosen is not None
    assert chosen.lazy
    assert chosen.side >= max(SIZE)
