"""pysteps as a baseline: what comes of it, what is kept on disk and believed, and what happens where it has nothing."""

import logging
import sys
import warnings

import numpy as np
import pytest
import xarray as xr

from cubecast import generate_rain
from cubecast.errors import InputError, UsageError
from cubecast.nowcaster import Nowcaster
from cubecast.pysteps_baselines import METHODS, pysteps_nowcast
from cubecast.units import convert_units
from cubecast.verification import evaluate, verify


@pytest.fixture(scope="module")
def installed():
    """pysteps, whose import warns and prints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in ("pysteps", "cv2", "skimage"):
            pytest.importorskip(module, reason="pysteps is not installed: pip install 'cubecast[pysteps]'")


@pytest.fixture(scope="module")
def cube():
    return generate_rain(frames=8, size=(48, 56), seed=1)


def make(cube, cache, method="sprog", *, at=4, horizon=3):
    found = pysteps_nowcast(cube, method=method, reference=cube.time.values[at], horizon=horizon, cache=cache)
    return found["rainfall_rate"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", METHODS)
def test_a_nowcast_is_a_forecast_and_better_than_persistence(cube, method, tmp_path, capfd):
    times = cube.time.values[[2, 4]]
    found = pysteps_nowcast(cube, method=method, reference=times, horizon=3, cache=tmp_path)
    field = found["rainfall_rate"]
    members = {"realization": 24} if method == "steps" else {}
    assert dict(field.sizes) == {"forecast_reference_time": 2, **members, "lead_time": 3, "y": 48, "x": 56}
    assert (field.dtype, field.attrs["units"]) == ("float32", "mm h-1")
    np.testing.assert_array_equal(found["valid_time"], cube.time.values[np.add.outer([2, 4], [1, 2, 3])])
    assert found.attrs["source"].startswith("pysteps 1.")
    mean = field.mean("realization", skipna=False) if members else field
    truth = np.stack([cube.values[3:6], cube.values[5:8]])
    last = cube.values[[2, 4], None]
    there = np.isfinite(mean.values)
    assert there.mean() > 0.6
    assert ((mean - truth).values[there] ** 2).mean() < 0.95 * ((last - truth)[there] ** 2).mean()
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("installed")
def test_what_is_kept_is_read_and_not_made_again(cube, tmp_path):
    first = make(cube, tmp_path).values
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    np.testing.assert_array_equal(make(cube, tmp_path), first)
    np.testing.assert_array_equal(make(cube[1:], tmp_path, at=3), first)
    assert path.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("installed")
def test_whatever_a_nowcast_depends_on_makes_another_file(cube, tmp_path):
    wetter = cube.copy()
    wetter[3, 0, 0] += 1
    coarse = cube.assign_coords(x=("x", 2 * cube.x.values, cube.x.attrs), y=("y", 2 * cube.y.values, cube.y.attrs))
    later = cube.assign_coords(time=cube.time + np.timedelta64(1, "h"))
    slower = cube.assign_coords(time=cube.time.values[0] + 2 * (cube.time - cube.time[0]))
    for count, other in enumerate([cube, wetter, coarse, later, slower], start=1):
        make(other, tmp_path)
        assert len(list(tmp_path.iterdir())) == count
    make(cube, tmp_path, horizon=2)
    make(cube, tmp_path, "steps", horizon=2)
    assert len(list(tmp_path.iterdir())) == 7
    assert np.isfinite(make(wetter, tmp_path, at=6)).any(), "its three frames do not hold the other value"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another"])
def test_a_broken_file_is_made_again(cube, damage, tmp_path, caplog):
    first = make(cube, tmp_path).values
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "another":
        make(cube, tmp_path / "more", at=5)
        path.write_bytes(next((tmp_path / "more").iterdir()).read_bytes())
    else:
        places = {"cut": len(whole) // 2, "empty": 0, "flipped": len(whole)}
        changed = bytearray(whole[: places[damage]])
        if damage == "flipped":
            place = largest_chunk(path)
            changed[place] ^= 0xFF
        path.write_bytes(changed)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(make(cube, tmp_path), first)
    assert "is broken and made again" in caplog.text or damage == "another"
    caplog.clear()
    np.testing.assert_array_equal(make(cube, tmp_path), first)
    assert not caplog.text


def largest_chunk(path):
    """A place inside compressed values: in the longest run of bytes that are not all one value."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    busy = np.convolve(np.abs(np.diff(data.astype(int))) > 0, np.ones(256), mode="valid")
    return int(busy.argmax()) + 128


@pytest.mark.usefixtures("installed")
def test_steps_is_the_same_each_time_and_leaves_the_global_generator_alone(cube, tmp_path):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one = make(cube, tmp_path / "a", "steps").values
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    np.testing.assert_array_equal(make(cube, tmp_path / "b", "steps"), one)
    shifted = cube.assign_coords(time=cube.time + np.timedelta64(1, "h"))
    assert (make(shifted, tmp_path, "steps").values != one).any(), "the noise is that of the reference time"
    assert len({member.tobytes() for member in one[0]}) == 24


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dry", [[2, 3, 4], [4], [2, 3]])
def test_where_a_frame_is_dry_the_last_frame_stands(cube, method, dry, tmp_path):
    cube = cube.copy()
    cube[dry] = 0.05
    found = make(cube, tmp_path, method, horizon=2)
    assert (found == cube[4].drop_vars("time")).all()


@pytest.mark.usefixtures("installed")
def test_too_little_rain_to_fit_to_is_said(cube, tmp_path, caplog):
    cube = 0 * cube
    cube[:, 20, 20] = 3.0
    found = make(cube.assign_attrs(units="mm h-1"), tmp_path)
    assert (found == cube[4].drop_vars("time")).all()
    assert "pysteps sprog has no nowcast at 2024-06-01T00:20" in caplog.text
    assert "the last frame stands for it: Singular matrix" in caplog.text
    assert not list(tmp_path.iterdir()), "what went wrong may not go wrong again"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", METHODS)
def test_missing_pixels_stay_missing(cube, method, tmp_path):
    cube = cube.copy(data=cube.values[..., ::-1])  # mirrored, it moves away from the missing pixels
    cube[:, :, :20] = np.nan
    found = make(cube, tmp_path, method).values
    assert np.isnan(found[..., :20]).all()
    assert np.isfinite(found[..., 30:45]).mean() > 0.8
    gone = make(cube.where(cube.time != cube.time[4]), tmp_path, method)
    assert np.isnan(gone).all()


@pytest.mark.usefixtures("installed")
def test_units_do_not_matter(cube, tmp_path):
    plain = make(cube, tmp_path).values
    for unit in ("m s-1", "dBZ"):
        other = convert_units(cube, unit)
        other = other.clip(min=-30.0).assign_attrs(other.attrs) if unit == "dBZ" else other
        found = make(other, tmp_path)
        assert found.attrs["units"] == unit
        same = np.isfinite(plain)
        np.testing.assert_array_equal(np.isfinite(found), same)
        back = convert_units(found, "mm h-1").values
        np.testing.assert_allclose(back[same], plain[same], rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("installed")
def test_a_grid_in_degrees_has_a_cell_size(cube, tmp_path):
    degrees = {
        "lat": ("y", 50 + 0.01 * np.arange(48), {"units": "degrees_north"}),
        "lon": ("x", 5 + 0.015 * np.arange(56), {"units": "degrees_east"}),
    }
    turned = cube.drop_vars(["x", "y", "crs"]).assign_coords(degrees).swap_dims(y="lat", x="lon")
    assert make(turned, tmp_path, "steps").dims[-2:] == ("lat", "lon")
    unknown = cube.drop_vars(["x", "y"])
    assert make(unknown, tmp_path).shape == (1, 3, 48, 56)
    with pytest.raises(InputError, match="STEPS on a grid of unknown cell size"):
        make(unknown, tmp_path, "steps")


@pytest.mark.usefixtures("installed")
def test_other_channels_are_passed_over(cube, tmp_path):
    both = xr.concat([cube, cube + 280], "channel").transpose("time", "channel", "y", "x")
    both = both.assign_coords(channel=["rainfall_rate", "t"], channel_units=("channel", ["mm h-1", "K"]))
    found = pysteps_nowcast(both, method="sprog", reference=cube.time.values[4], horizon=3, cache=tmp_path)
    assert list(found.data_vars) == ["rainfall_rate"]
    np.testing.assert_array_equal(found["rainfall_rate"], make(cube, tmp_path))


@pytest.mark.usefixtures("installed")
def test_wrong_wishes_are_refused(cube, tmp_path):
    with pytest.raises(UsageError, match="method of pysteps: found 'anvil'; allowed: sprog, steps, linda"):
        make(cube, tmp_path, "anvil")
    with pytest.raises(InputError, match="found a gap or the start; allowed: 3 frames in a row"):
        make(cube, tmp_path, at=1)
    with pytest.raises(InputError, match="frames before 2024-06-01T00:25"):
        make(cube[[0, 1, 2, 4, 5]], tmp_path)
    for other in (cube.assign_attrs(units="K", standard_name="air_temperature"), cube[:, 0]):
        with pytest.raises(UsageError, match="allowed: fields of rain at a step of minutes or hours"):
            make(other, tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_pysteps_one_line_says_what_to_install(cube, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pysteps", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match=r"no pysteps, opencv-python-headless.*pip install 'cubecast\[pysteps\]'"):
        make(cube, tmp_path)


@pytest.mark.usefixtures("installed")
def test_verification_sets_pysteps_beside_a_model(cube, tmp_path):
    model = Nowcaster(history=2, horizon=2, hidden_channels=[4], patch=4, crop=16, epochs=1).fit(
        generate_rain(frames=30, size=(48, 56))
    )
    names = ["persistence", "extrapolation", "sprog", "steps"]
    found = evaluate(cube, model, baselines=names, cache=tmp_path)
    table = found.table.set_index(["system", "lead_step"])
    assert list(table.index.unique("system")) == ["model", *names]
    assert table.groupby("lead_step")["pixels"].nunique().tolist() == [1, 1]
    assert set(table.xs(1, level="lead_step")["cases"]) == {5}, "the first has two frames before it, not one"
    crps = table["crps"]
    assert (crps["steps"] < table["mae"]["steps"]).all()
    np.testing.assert_allclose(crps["sprog"], table["mae"]["sprog"])
    assert found.scores["rainfall_rate"]["rank_histogram"].sel(system="steps").sizes["rank"] == 25
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == 2 * 5
    again = verify(cube, model, baselines=names, cache=tmp_path)
    xr.testing.assert_identical(again.to_xarray(), found.table.to_xarray())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept
