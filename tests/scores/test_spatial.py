import numpy as np
import pytest
import xarray as xr

from cubecast.errors import InputError, UsageError
from cubecast.scores import scores_from, statistics
from cubecast.scores.spatial import cell_km, window_cells

DIMS = ("forecast_reference_time", "lead_time", "y", "x")
LEAD = {"lead_time": np.array([5], "timedelta64[m]").astype("timedelta64[ns]")}


def _fss(forecast, observed, cells):
    made = (xr.DataArray(np.asarray(v, float)[None, None], dims=DIMS, coords=LEAD) for v in (forecast, observed))
    return scores_from(statistics(*made, thresholds=(1.0,), fss_windows={"w": cells}))["fss"].item()


def test_worked_example_of_one_cell_apart():
    # A line of 5, event at place 1 and at place 3. Windows of 3 cells: shares 1/2 1/3 1/3 0 0 and 0 0 1/3 1/3 1/2.
    forecast, observed = [[0, 1, 0, 0, 0]], [[0, 0, 0, 1, 0]]
    apart = 1 / 4 + 1 / 9 + 0 + 1 / 9 + 1 / 4
    size = 2 * (1 / 4 + 1 / 9 + 1 / 9)
    assert _fss(forecast, observed, 3) == pytest.approx(1 - apart / size)
    assert _fss(forecast, observed, 1) == 0
    assert _fss(forecast, observed, 9) == pytest.approx(1)
    assert _fss(observed, observed, 3) == 1


def test_missing_points_make_windows_smaller_and_do_not_count():
    # place 0 is missing: the window of place 1 holds places 1 and 2 only.
    forecast, observed = [[np.nan, 1, 0, 0]], [[1, 0, 1, 0]]
    # forecast shares at 1, 2, 3: 1/2, 1/3, 0; observed: 1/2, 1/3, 1/2
    assert _fss(forecast, observed, 3) == pytest.approx(1 - (1 / 4) / (2 * (1 / 4 + 1 / 9) + 1 / 4))


def test_missing_points_are_no_events_below_zero_either():
    shape = {"dims": DIMS, "coords": LEAD}
    observed = xr.DataArray(np.array([[np.nan, -2.0, -2.0]])[None, None], **shape)
    forecast = xr.DataArray(np.array([[0.0, -2.0, 0.0]])[None, None], **shape)
    sums = statistics(forecast, observed, thresholds=(-1.0,), fss_windows={"w": 3})
    assert sums["fss_difference"].item() == pytest.approx(2 * (1 / 2) ** 2)  # shares at 1, 2: 1/2, 1/2 and 0, 0
    assert sums["fss_reference"].item() == pytest.approx(2 * (1 / 2) ** 2)


def test_no_event_at_all_is_nan():
    assert np.isnan(_fss(np.zeros((3, 3)), np.zeros((3, 3)), 3))
    assert _fss(np.ones((3, 3)), np.zeros((3, 3)), 3) == 0


@pytest.mark.parametrize(
    ("window", "cell", "found"),
    [
        (5, None, ("5cells", 5)),
        ("7", 1.0, ("7cells", 7)),
        ("10km", 1.0, ("10km", 11)),
        ("10 km", 2.0, ("10km", 5)),
        ("10km", 4.0, ("10km", 3)),
        ("2.5km", 0.5, ("2.5km", 5)),
        ("10km", 50.0, ("10km", 1)),
    ],
)
def test_windows_hold_the_whole_cells_within_half_to_each_side(window, cell, found):
    assert window_cells(window, cell) == found


@pytest.mark.parametrize("window", [4, 0, -3, "ten", "0km", "3.5", "5m"])
def test_other_windows_are_refused(window):
    with pytest.raises(UsageError, match="an odd number of cells, or a length such as 10km"):
        window_cells(window, 1.0)


def test_a_length_needs_the_size_of_a_cell():
    with pytest.raises(InputError, match="give the window in cells"):
        window_cells("10km", None)


def _grid(y, x, units):
    coords = {"y": ("y", y, {"units": units[0]}), "x": ("x", x, {"units": units[1]})}
    return xr.DataArray(np.zeros((1, len(y), len(x))), dims=("time", "y", "x"), coords=coords)


def test_cell_size_of_projected_and_geographic_grids():
    assert cell_km(_grid([0.0, 2000.0, 4000.0], [0.0, 2000.0], ("m", "m"))) == pytest.approx(2.0)
    assert cell_km(_grid([4.0, 3.0], [0.0, 4.0], ("km", "km"))) == pytest.approx(2.0)
    north = cell_km(_grid([61.0, 59.0], [5.0, 7.0], ("degrees_north", "degrees_east")))
    assert north == pytest.approx(2 * 111.2 * np.sqrt(0.5), rel=1e-6)
    swapped = _grid([5.0, 7.0], [61.0, 59.0], ("degrees_east", "degrees_north"))
    assert cell_km(swapped) == pytest.approx(north)
    assert cell_km(_grid([0.0, 1.0], [0.0, 1.0], ("1", "1"))) is None
    assert cell_km(_grid([0.0], [0.0, 1.0], ("m", "m"))) is None
