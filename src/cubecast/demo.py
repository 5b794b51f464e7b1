"""The whole chain on generated rain: netCDF in, a trained model, a CF netCDF nowcast, maps, animation and scores."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import xarray as xr

from cubecast.atomic import make_folder
from cubecast.config import Config
from cubecast.cube import sequence_dim
from cubecast.errors import FailedError
from cubecast.maps import animate, plot_comparison, save_figure
from cubecast.nowcaster import Nowcaster
from cubecast.progress import Progress
from cubecast.report import write_evaluation
from cubecast.sources import open_cube
from cubecast.sources.synthetic import Flow, generate_rain
from cubecast.verification import evaluate
from cubecast.write import write_cube, write_forecast

log = logging.getLogger(__name__)

FRAMES, TEST_FRAMES = 320, 60
"""Frames of generated rain, and how many at their end the training never sees."""
SIZE = (96, 96)


def run_demo(folder: str | Path, *, minutes: float, seed: int, progress: Progress | None = None) -> pd.DataFrame:
    """Fill ``folder`` with everything that a user gets from cubecast, and give the table of scores.

    Written: radar.nc (generated rain), model/, nowcast.nc, nowcast.gif, maps/*.png, scores.csv and .png, report.html.

    Args:
        folder: made when missing; files of an earlier demo are replaced.
        minutes: training time at most.
        seed: of the rain and of the training.

    Raises:
        FailedError: the trained model is not ahead of persistence at every lead.
    """
    target = Path(folder)
    make_folder(target / "maps")
    rain = demo_rain(seed)
    write_cube(rain, target / "radar.nc")
    cube = open_cube(target / "radar.nc")
    dim = sequence_dim(cube)
    model = Nowcaster(demo_config(minutes=minutes, seed=seed))
    log.info("training for at most %g minutes", minutes)
    model.fit(cube.isel({dim: slice(0, FRAMES - TEST_FRAMES)}), progress=progress or False)
    model.save(target / "model")

    unseen = cube.isel({dim: slice(FRAMES - TEST_FRAMES, None)})
    reference = unseen[dim].values[TEST_FRAMES // 2]
    nowcast = model.predict(unseen, at=reference)
    write_forecast(nowcast, target / "nowcast.nc")
    leads = [0, 2, 5, 8, 11]
    save_figure(plot_comparison(nowcast, unseen, leads=leads), target / "maps" / "comparison.png")
    animate(nowcast, target / "nowcast.gif", cube=unseen)
    evaluation = evaluate(unseen, model, progress=progress)
    write_evaluation(evaluation, target, cube=unseen)
    table = evaluation.table
    mse = table.pivot_table(index="lead_step", columns="system", values="mse")
    if not (mse["model"] < mse["persistence"]).all():
        raise FailedError(
            "the demo's model is not ahead of persistence at every lead",
            found=f"trained for {len(model.log)} epochs",
            remedy="give it more time with --minutes",
        )
    return table


def demo_rain(seed: int) -> xr.DataArray:
    """Widespread rain at a moderate speed, of which an hour ahead most is still in the field, whatever the seed."""
    return generate_rain(
        frames=FRAMES,
        size=SIZE,
        grid_km=2.0,
        seed=seed,
        kind="stratiform",
        wet_fraction=0.35,
        flow=Flow(10.0, turn=0.3),
    )


def demo_config(*, minutes: float, seed: int) -> Config:
    """A small ConvLSTM that learns the demo's rain within three minutes on two cores."""
    return Config.preset(
        "rain",
        history=6,
        horizon=12,
        crop=None,
        batch_size=4,
        hidden_channels=[32, 32],
        epochs=30,
        max_minutes=minutes,
        seed=seed,
    )
