"""decode(encode(x)) = x, and fits survive JSON, for any data."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cubecast.scaling import choose_scaling, scaling_from_json
from cubecast.scaling.moments import Moments
from cubecast.scaling.rain import FAINT

shapes = st.tuples(st.just(30), st.integers(1, 3), st.integers(1, 4))
rates = st.floats(0, 3000, width=32) | st.just(0.0) | st.just(float("nan"))
degrees = st.floats(230, 330, width=32) | st.just(float("nan"))


def make_cube(values, units):
    months = np.datetime64("1999-11") + np.arange(len(values))
    coords = {"time": months.astype("M8[ns]"), "y": np.arange(values.shape[1]) * -0.25}
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords, attrs={"units": units}, name="v")


def round_trip(kind, cube):
    """What comes back through a scaling that went through JSON text."""
    fitted = choose_scaling(kind, cube).fit([cube])
    text = json.dumps(fitted.to_json(), allow_nan=False)
    again = scaling_from_json(json.loads(text), fitted.arrays())
    encoded = fitted.encode(cube)
    assert encoded.identical(again.encode(cube))
    np.testing.assert_array_equal(np.isnan(encoded), np.isnan(cube))
    decoded = again.decode(encoded)
    assert decoded.attrs == cube.attrs
    assert decoded.dtype == np.float32
    return decoded.values


@given(shapes.flatmap(lambda s: arrays.arrays(np.float32, s, elements=rates)))
def test_rain_comes_back(values):
    values[0, 0, 0] = 1.5  # some rain to fit
    cube = make_cube(values, "mm h-1")
    heard = np.where(values < FAINT * (1 - 1e-6), 0, values)
    np.testing.assert_allclose(round_trip("log", cube), heard, rtol=2e-6, atol=3e-8)
    strong = np.where(values < 0.1 * (1 - 1e-6), 0, values)
    np.testing.assert_allclose(round_trip("dbr", cube), strong, rtol=5e-6)


@given(shapes.flatmap(lambda s: arrays.arrays(np.float32, s, elements=degrees)))
def test_temperatures_come_back(values):
    values[0, 0, 0] = 280
    np.testing.assert_allclose(round_trip("standardise", make_cube(values, "K")), values, rtol=5e-7)
    np.testing.assert_array_equal(round_trip("identity", make_cube(values, "K")), values)


@given(shapes.flatmap(lambda s: arrays.arrays(np.float32, s, elements=degrees)))
def test_monthly_temperatures_come_back(values):
    values[:12, 0, 0], values[12, 0, 0] = 280, 285  # every month once, and one anomaly
    np.testing.assert_allclose(round_trip("monthly_anomaly", make_cube(values, "K")), values, rtol=5e-7)


@given(arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6)), st.data())
def test_moments_of_pieces_are_those_of_the_whole(values, data):
    cut = data.draw(st.integers(0, len(values)))
    merged = Moments.of(values[:cut]).merge(Moments.of(values[cut:]))
    assert merged.count == len(values)
    assert merged.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
    assert merged.squares == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-9, abs=1e-3)
