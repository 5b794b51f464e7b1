"""Maps of ensemble products: tenths of probability, the event beside it, and titles that say what is drawn."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb

from cubecast.cube import cube_step
from cubecast.ensemble_products import ensemble_mean, ensemble_probabilities, ensemble_quantiles
from cubecast.maps import plot_comparison, plot_leads, plot_systems
from cubecast.maps.colours import DRY, field_style
from cubecast.product import build_forecast

NAME = "probability_of_rainfall_rate_above_1"


@pytest.fixture
def ensemble(rain) -> xr.Dataset:
    """Ten members of two leads; rain falls in more of them from west to east."""
    cube = rain(4)
    members = np.where(np.arange(28) > np.arange(10, 0, -1)[:, None, None] * 2, 2.0, 0.0)
    values = np.broadcast_to(members[None, :, None], (1, 10, 2, *cube.shape[1:])).astype(np.float32)
    return build_forecast({"rainfall_rate": values}, cube, reference=cube.time.values[[1]], step=cube_step(cube))


def test_each_tenth_has_its_colour_and_they_darken(ensemble):
    field = ensemble_probabilities(ensemble, [1.0])[NAME]
    shares = np.arange(11, dtype=np.float32) / np.float32(10)
    style = field_style(field, [shares])
    classes = style.norm(shares)
    assert list(classes) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert tuple(style.cmap(0)[:3]) == to_rgb(DRY)
    luminance = style.cmap(np.arange(10))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < -0.02).all()
    assert style.label == "Probability"
    assert style.extend == "neither"
    assert not style.missing


def test_titles_say_what_is_drawn(ensemble):
    start = "forecast from 2020-06-01 00:05 UTC"
    for made, said in (
        (ensemble, f"Rainfall rate {start}, mean of 10 members"),
        (ensemble_mean(ensemble), f"Rainfall rate {start}, mean of 10 members"),
        (
            ensemble_probabilities(ensemble, [1.0]),
            f"Probability of a rain rate of 1 mm h⁻¹ or more, {start}, share of 10 members",
        ),
        (ensemble_quantiles(ensemble, [0.9]), f"Rainfall rate {start}, 0.9 quantile of 10 members"),
    ):
        heading = plot_leads(made, coastline="none").texts[0].get_text()
        assert heading.replace("\n", " ") == said


def test_a_probability_stands_beside_its_event(ensemble, rain):
    cube = rain(4)
    figure = plot_comparison(ensemble_probabilities(ensemble, [1.0]), cube, coastline="none")
    observed, forecast, difference = (figure.axes[i].images[0].get_array() for i in (0, 2, 4))
    event = (cube.values[2] >= 1.0)[::-1]  # rows from south to north
    np.testing.assert_array_equal(observed, event)
    assert 0 < event.mean() < 1
    np.testing.assert_allclose(difference, forecast - event, atol=1e-6)
    assert figure.axes[4].images[0].get_clim() == (-1, 1)


def test_the_heading_of_several_systems_is_not_that_of_one(ensemble, rain):
    figure = plot_systems({"model": ensemble, "mean": ensemble_mean(ensemble)}, rain(4), coastline="none")
    assert figure.texts[0].get_text() == "Rainfall rate forecast from 2020-06-01 00:05 UTC"
