"""Products of an ensemble: computed by hand on small ones, and forecasts like any other to all who read them."""

import dask.array
import numpy as np
import pytest
import xarray as xr

import cubecast
from cubecast.cube import cube_step
from cubecast.ensemble_products import observed_product
from cubecast.errors import InputError, UsageError
from cubecast.product import build_forecast
from cubecast.scores import scores_from, verify_forecasts

MEMBERS = np.array([0.0, 0.2, 1.0, 4.0, 9.0], np.float32)


@pytest.fixture
def ensemble(rain) -> xr.Dataset:
    """Five members of three leads after two times: the same `MEMBERS` in every pixel, in another order each."""
    cube = rain(6)
    rng = np.random.default_rng(0)
    values = rng.permuted(np.broadcast_to(MEMBERS[:, None, None, None], (2, 5, 3, *cube.shape[1:])), axis=1)
    reference = cube.time.values[[2, 3]]
    return build_forecast(
        {"rainfall_rate": values}, cube, reference=reference, step=cube_step(cube), attrs={"title": "t"}
    )


def test_each_product_is_what_is_computed_by_hand(ensemble):
    mean = cubecast.ensemble_mean(ensemble)["rainfall_rate"]
    np.testing.assert_allclose(mean, 2.84, rtol=1e-6)
    shares = cubecast.ensemble_probabilities(ensemble, [0.1, 1, 5.0])
    for name, share in (("0p1", 0.8), ("1", 0.6), ("5", 0.2)):
        np.testing.assert_allclose(shares[f"probability_of_rainfall_rate_above_{name}"], share, rtol=1e-6)
    places = cubecast.ensemble_quantiles(ensemble, [0, 0.1, 0.5, 0.75, 1])
    for name, value in (("0", 0.0), ("0p1", 0.08), ("0p5", 1.0), ("0p75", 4.0), ("1", 9.0)):
        np.testing.assert_allclose(places[f"rainfall_rate_quantile_{name}"], value, rtol=1e-6)
    for product in (mean, *shares.data_vars.values(), *places.data_vars.values()):
        assert product.dims == ("forecast_reference_time", "lead_time", "y", "x")
        assert product.dtype == np.float32
        assert "valid_time" in product.coords
    assert shares.attrs == places.attrs == ensemble.attrs


def test_attributes_say_what_a_product_is(ensemble):
    mean = cubecast.ensemble_mean(ensemble)["rainfall_rate"].attrs
    assert mean["standard_name"] == "rainfall_rate"
    share = cubecast.ensemble_probabilities(ensemble, [0.1])["probability_of_rainfall_rate_above_0p1"].attrs
    assert share["long_name"] == "probability of a rain rate of 0.1 mm h-1 or more"
    assert (share["units"], share["threshold"], share["threshold_units"]) == ("1", 0.1, "mm h-1")
    assert "standard_name" not in share
    assert share["ensemble_statistic"] == "share of 5 members"
    high = cubecast.ensemble_quantiles(ensemble, [0.9])["rainfall_rate_quantile_0p9"].attrs
    assert (high["units"], high["quantile"], high["long_name"]) == ("mm h-1", 0.9, "0.9 quantile of rain rate")


def test_names_hold_signs_and_units_without_a_name_are_left_out(ensemble):
    anomaly = ensemble["rainfall_rate"].drop_attrs(deep=False).assign_attrs(units="1", long_name="index").to_dataset()
    share = cubecast.ensemble_probabilities(anomaly, [-1.5])["probability_of_rainfall_rate_above_m1p5"]
    assert share.attrs["long_name"] == "probability of an index of -1.5 or more"
    assert float(share.min()) == 1.0


def test_where_a_member_is_missing_the_products_are(ensemble):
    ensemble["rainfall_rate"][1, 2, 0, 3, 4] = np.nan
    for product in (
        cubecast.ensemble_mean(ensemble),
        cubecast.ensemble_probabilities(ensemble, [1.0]),
        cubecast.ensemble_quantiles(ensemble, [0.5]),
    ):
        (field,) = product.data_vars.values()
        assert np.argwhere(field.isnull().values).tolist() == [[1, 0, 3, 4]]


def test_packed_values_reach_their_threshold(ensemble):
    packed = ensemble.map(lambda f: f.where(f > 0.1, np.float32(0.09999999)), keep_attrs=True)
    assert (cubecast.ensemble_probabilities(packed, [0.1]).to_dataarray() == 1).all()


def test_lazy_ensembles_stay_lazy_and_give_the_same(ensemble):
    lazy = ensemble.chunk({"realization": 1, "lead_time": 1})
    for make in (
        cubecast.ensemble_mean,
        lambda f: cubecast.ensemble_probabilities(f, [1.0]),
        lambda f: cubecast.ensemble_quantiles(f, [0.9]),
    ):
        made = make(lazy)
        assert all(isinstance(f.data, dask.array.Array) for f in made.data_vars.values())
        xr.testing.assert_allclose(made.compute(), make(ensemble))


def test_a_probability_is_the_one_that_the_scores_judge(ensemble, rain):
    """Its mean squared distance from the event is the Brier score that verification finds."""
    cube = rain(12)
    noise = np.random.default_rng(1).gamma(1.0, 1.0, ensemble["rainfall_rate"].shape)
    ensemble["rainfall_rate"] *= noise.astype(np.float32)
    scores = scores_from(verify_forecasts({"e": ensemble}, cube, thresholds=[1.0], windows=[]))
    share = cubecast.ensemble_probabilities(ensemble, [1.0])["probability_of_rainfall_rate_above_1"]
    truth = np.stack([cube.sel(time=valid).values for valid in share["valid_time"].values.ravel()]).reshape(share.shape)
    event = observed_product(share, xr.DataArray(truth, dims=share.dims, attrs=cube.attrs))
    brier = ((share - event.values) ** 2).mean(("forecast_reference_time", "y", "x"))
    np.testing.assert_allclose(scores["brier"].squeeze(), brier, rtol=1e-5)


def test_the_observation_of_a_probability_is_the_event_in_its_units(ensemble, rain):
    share = cubecast.ensemble_probabilities(ensemble, [1.0])["probability_of_rainfall_rate_above_1"]
    observed = rain(3)[2].copy()
    observed[0, 0] = np.nan
    event = observed_product(share, cubecast.convert_units(observed, "m s-1"))
    np.testing.assert_array_equal(event.values, np.where(np.isnan(observed), np.nan, observed >= 1.0))
    same = observed_product(cubecast.ensemble_mean(ensemble)["rainfall_rate"], observed)
    xr.testing.assert_identical(same, observed)


def test_wrong_wishes_are_refused(ensemble):
    with pytest.raises(InputError, match=r"no ensemble in 'rainfall_rate': .* make one with members=24"):
        cubecast.ensemble_mean(ensemble.isel(realization=0))
    for wrong in ([], [np.nan]):
        with pytest.raises(UsageError, match="thresholds of probabilities: found"):
            cubecast.ensemble_probabilities(ensemble, wrong)
    for wrong in ([], [1.1], [-0.1], [np.nan]):
        with pytest.raises(UsageError, match="quantiles: found"):
            cubecast.ensemble_quantiles(ensemble, wrong)
