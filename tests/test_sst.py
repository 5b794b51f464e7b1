"""The sea-surface temperature recipe on real months: a short training is ahead of climatology and of persistence.

The whole recipe and its scores on 2017 to 2020 are in the notebook; this stays inside the years before.
"""

import numpy as np

from cubecast import Config, Nowcaster, open_cube, verify
from cubecast.channels import preset_for


def test_a_short_training_on_ersst_is_ahead_of_climatology_and_persistence_at_every_lead(real_data):
    cube = open_cube(real_data / "sst" / "ersstv5_201001_202008.nc", end="2016-12")
    assert preset_for(cube) == "sst"
    model = Nowcaster(Config.preset("sst", epochs=5)).fit(cube.sel(time=slice(None, "2015-12")))
    assert model.training_period[1] == np.datetime64("2015-12-01")
    scores = verify(cube, model, start="2016-01", region={"lat": (-60, 60)}, never_below=-1.79)
    rmse = scores.pivot_table(index="lead_step", columns="system", values="rmse")
    np.testing.assert_allclose(rmse["climatology"], 0.665, atol=0.002)  # 8049 pixels of ice-free ocean
    np.testing.assert_allclose(rmse["anomaly_persistence"], [0.364, 0.515, 0.617], atol=0.002)
    assert (rmse["model"] < 0.9 * rmse["climatology"]).all()
    assert (rmse["model"] < 0.98 * rmse["anomaly_persistence"]).all()
