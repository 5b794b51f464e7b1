"""Extrapolation as a forecast: what it carries where, what it leaves missing, and how good it is on real rain."""

import numpy as np
import pytest
import xarray as xr

from cubecast import generate_rain, open_cube
from cubecast.errors import InputError, UsageError
from cubecast.extrapolation import extrapolation, is_rain_field
from cubecast.scores import to_table, verify_forecasts
from cubecast.units import convert_units


def test_moving_rain_is_where_it_will_be(rain):
    cube = rain(20, size=(60, 80))
    forecast = extrapolation(cube, reference=cube.time.values[[8, 10]], horizon=6)
    field = forecast["rainfall_rate"]
    assert field.dims == ("forecast_reference_time", "lead_time", "y", "x")
    assert (field.dtype, field.attrs["units"], field.attrs["standard_name"]) == ("float32", "mm h-1", "rainfall_rate")
    np.testing.assert_array_equal(forecast["valid_time"], cube.time.values[np.add.outer([8, 10], np.arange(1, 7))])
    assert forecast.attrs["source"].startswith("cubecast baseline extrapolation: the last observed frame")
    for case, last in enumerate((8, 10)):
        for lead in range(1, 7):
            truth, found = cube.values[last + lead], field.values[case, lead - 1]
            there = np.isfinite(found)
            assert there[:, lead + 1 :].mean() > 0.97
            assert not there[10:-10, : lead - 1].any(), "what comes in over the edge is unknown"
            error = ((found - truth)[there] ** 2).mean()
            assert error < 0.05 * ((cube.values[last] - truth)[there] ** 2).mean()


def test_missing_pixels_move_with_the_air():
    cube = generate_rain(frames=7, size=(64, 64), life_time=1e6).copy()
    cube[:, 20:30, 20:30] = np.nan
    cube[2, 50:, :] = np.nan
    found = extrapolation(cube, reference=cube.time.values[5], horizon=4)["rainfall_rate"].values[0]
    gone = np.isnan(found[:, 5:-5, 12:-5])
    assert gone.any(axis=(1, 2)).all()
    middle = [np.argwhere(g).mean(axis=0) for g in gone]
    assert middle[3][1] - middle[0][1] > 3, "the rain moves east, and so does the hole"


def test_units_do_not_matter(rain):
    cube = rain(8, size=(40, 48)) + 0.01
    cube.attrs = rain(2).attrs
    one = extrapolation(cube, reference=cube.time.values[6], horizon=2)["rainfall_rate"]
    for unit in ("m s-1", "mm d-1"):
        other = extrapolation(convert_units(cube, unit), reference=cube.time.values[6], horizon=2)["rainfall_rate"]
        np.testing.assert_allclose(convert_units(other, "mm h-1"), one, rtol=1e-3, atol=1e-4)
    assert is_rain_field(convert_units(cube, "dBZ"))
    assert not is_rain_field(cube.assign_attrs(units="m s-1", standard_name="wind_speed"))
    assert not is_rain_field(cube.assign_attrs(units="in h-1"))


def test_every_variable_has_its_own_motion(rain):
    east = rain(8, size=(40, 48))
    west = east.isel(x=slice(None, None, -1)).assign_coords(x=east.x)
    both = xr.concat([east, west], "channel").transpose("time", "channel", "y", "x")
    both = both.assign_coords(channel=["a", "b"], channel_units=("channel", ["mm h-1", "mm h-1"]))
    found = extrapolation(both, reference=both.time.values[6], horizon=3)
    np.testing.assert_allclose(found["a"].values, found["b"].values[..., ::-1], atol=1e-3)
    assert np.isnan(found["a"].values[0, 2, 10:30, 0]).all()
    assert np.isfinite(found["b"].values[0, 2, 10:30, 0]).all()


def test_a_dry_or_missing_history_is_no_reason_to_fail(rain):
    cube = rain(8)
    dry = extrapolation(cube.copy(data=0 * cube.values), reference=cube.time.values[6], horizon=2)["rainfall_rate"]
    assert (dry.values == 0).all(), "no motion, and nothing comes in"
    missing = extrapolation(cube.copy(data=np.nan * cube.values), reference=cube.time.values[6], horizon=2)
    assert np.isnan(missing["rainfall_rate"].values).all()


def test_wrong_wishes_are_refused(rain):
    cube = rain(12, missing=(3,))
    for wrong, message in (({"horizon": 0}, "horizon"), ({"horizon": 1, "history": 1}, "history of an extrapolation")):
        with pytest.raises(UsageError, match=message):
            extrapolation(cube, reference=cube.time.values[-1], **wrong)
    with pytest.raises(UsageError, match="reference time: found 'soon'"):
        extrapolation(cube, reference="soon", horizon=1)
    with pytest.raises(UsageError, match="extrapolation: found space dims"):
        extrapolation(cube[:, :, 0], reference=cube.time.values[-1], horizon=1)
    with pytest.raises(InputError, match="is not in the cube"):
        extrapolation(cube, reference="2031-01-01", horizon=1)
    with pytest.raises(InputError, match="frames are missing before"):
        extrapolation(cube, reference=cube.time.values[6], horizon=1)
    with pytest.raises(InputError, match="too few frames up to"):
        extrapolation(cube, reference=cube.time.values[2], horizon=1)


# Frame, and MSE, CSI at 0.1, 1 and 5 mm/h (means over 12 leads) of pysteps 1.21.5: Lucas-Kanade motion of three frames
# and semi-Lagrangian extrapolation, on the pixels where both extrapolations and the truth are finite.
PEER = {
    "fmi_20160928": (11, [0.2664, 0.7674, 0.4327, 0.1614]),
    "knmi_20100826": (20, [0.2045, 0.6662, 0.3459, 0.0204]),
    "mrms_20190610": (11, [0.8781, 0.9157, 0.7481, 0.2088]),
}


@pytest.mark.parametrize("event", PEER)
def test_real_rain_is_extrapolated_no_worse_than_by_pysteps(event, real_data):
    last, peer = PEER[event]
    cube = open_cube(real_data / "radar" / f"{event}.nc")[last - 5 : last + 13]
    systems = {"ours": extrapolation(cube, reference=cube.time.values[5], horizon=12)}
    table = to_table(verify_forecasts(systems, cube, windows=[1]))
    mse, *csi = table[["mse", "csi_0.1", "csi_1", "csi_5"]].mean()
    assert mse < 0.9 * peer[0]
    assert (np.array(csi) > peer[1:]).all()
