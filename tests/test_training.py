"""The loop: it learns, keeps the best weights of validation, stops, and resumes to the same bits."""

import csv
import json
import math

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import load_file

from cubecast import training
from cubecast.checkpoint import CHECKPOINT, LOG
from cubecast.config import TrainingConfig
from cubecast.errors import FailedError, InputError, UsageError
from cubecast.nowcaster import Nowcaster
from cubecast.ranks import Ranks

SMALL = {"history": 3, "horizon": 2, "hidden_channels": [8], "patch": 4, "crop": 16, "epochs": 4, "average": 0.5}


def weights(model):
    return {k: v.clone() for k, v in model.network.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_validation_loss_falls(rain):
    model = Nowcaster(**{**SMALL, "epochs": 8, "learning_rate": 3e-3}).fit(rain(40))
    losses = [row["validation_loss"] for row in model.log]
    assert len(losses) == 8
    assert min(losses) < 0.8 * losses[0]


def test_same_seed_same_bits_other_seed_other_weights(rain):
    one, two = (Nowcaster(**SMALL).fit(rain(40)) for _ in range(2))
    other = Nowcaster(**SMALL, seed=1).fit(rain(40))
    assert equal(weights(one), weights(two))
    assert [r["training_loss"] for r in one.log] == [r["training_loss"] for r in two.log]
    assert not equal(weights(one), weights(other))


class Killed(BaseException):
    """Stands for what ends a process between two steps."""


def fit_until_killed(model, cube, directory, monkeypatch, *, step):
    """Fit ``model`` up to its step number ``step``, of all its trainings together, which never ends."""
    original, done = training._step, []

    def killing(run, *args, **kwargs):
        done.append(1)
        if len(done) == step:
            raise Killed
        return original(run, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(training, "_step", killing)
        with pytest.raises(Killed):
            model.fit(cube, directory=directory)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resume_after_a_kill_ends_with_the_same_bits(rain, tmp_path, monkeypatch, optimizer):
    settings = {**SMALL, "optimizer": optimizer}
    whole = Nowcaster(**settings).fit(rain(40), directory=tmp_path / "whole")
    fit_until_killed(Nowcaster(**settings), rain(40), tmp_path / "cut", monkeypatch, step=13)
    with safe_open(tmp_path / "cut" / CHECKPOINT, framework="pt") as file:
        assert 1 <= json.loads(file.metadata()["run"])["epoch"] < 4
    resumed = Nowcaster(**settings).fit(rain(40), directory=tmp_path / "cut", resume=True)
    assert equal(weights(whole), weights(resumed))
    assert [r["validation_loss"] for r in whole.log] == [r["validation_loss"] for r in resumed.log]


def test_a_checkpoint_of_other_settings_or_a_damaged_one_is_refused(rain, tmp_path):
    Nowcaster(**{**SMALL, "epochs": 1}).fit(rain(40), directory=tmp_path)
    with pytest.raises(InputError, match="belongs to another run"):
        Nowcaster(**{**SMALL, "epochs": 2}).fit(rain(40), directory=tmp_path, resume=True)
    for other in (rain(40).rename("other"), rain(42)):
        with pytest.raises(InputError, match="belongs to another run"):
            Nowcaster(**{**SMALL, "epochs": 1}).fit(other, directory=tmp_path, resume=True)
    with pytest.raises(InputError, match="belongs to another run"):
        Nowcaster(**{**SMALL, "epochs": 1}).fit(rain(40), validation=rain(20), directory=tmp_path, resume=True)
    height = xr.Dataset({"height": (("y", "x"), np.ones(rain(1).shape[1:]))})
    with pytest.raises(InputError, match="belongs to another run"):
        Nowcaster(**{**SMALL, "epochs": 1}).fit(rain(40), static=height, directory=tmp_path, resume=True)
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="delete it and train again"):
        Nowcaster(**{**SMALL, "epochs": 1}).fit(rain(40), directory=tmp_path, resume=True)


def test_a_fit_that_is_interrupted_leaves_the_model_as_it_was(rain, tmp_path, monkeypatch):
    model = Nowcaster(**{**SMALL, "epochs": 1})
    fit_until_killed(model, rain(40), tmp_path / "first", monkeypatch, step=3)
    with pytest.raises(UsageError, match="not trained"):
        model.predict(rain(12))
    before = model.fit(rain(40)).predict(rain(12))
    fit_until_killed(model, 50 * rain(40).assign_attrs(units="mm h-1"), tmp_path / "second", monkeypatch, step=3)
    xr.testing.assert_identical(model.predict(rain(12)), before)


def test_a_new_run_forgets_the_checkpoints_of_the_one_before(rain, tmp_path, monkeypatch):
    settings = {**SMALL, "refit": True}
    Nowcaster(**{**settings, "epochs": 1}).fit(rain(40), directory=tmp_path)
    fit_until_killed(Nowcaster(**settings), rain(40), tmp_path, monkeypatch, step=13)
    assert Nowcaster(**settings).fit(rain(40), directory=tmp_path, resume=True).log


def test_nothing_to_train_on_is_one_line(rain):
    with pytest.raises(UsageError, match="cubes: found none"):
        Nowcaster(**SMALL).fit([])
    with pytest.raises(InputError, match=r"static fields: found DataArray; .*to_dataset"):
        Nowcaster(**SMALL).fit(rain(40), static=rain(1)[0].drop_vars("time"))
    both = xr.concat([rain(40)] * 2, "channel").transpose("time", "channel", "y", "x")
    both = both.assign_coords(channel=["a", "b"], channel_units=("channel", ["mm h-1"] * 2))
    with pytest.raises(UsageError, match="outputs: found a, a; allowed: each once"):
        Nowcaster(**SMALL, outputs=["a", "a"]).fit(both)
    with pytest.raises(InputError, match="channels: found a, a; allowed: each variable once"):
        Nowcaster(**SMALL).fit(both.assign_coords(channel=["a", "a"]))


def test_the_log_is_a_csv_with_a_row_an_epoch(rain, tmp_path):
    model = Nowcaster(**SMALL).fit(rain(40), directory=tmp_path)
    with open(tmp_path / LOG, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["validation_loss"]) for r in rows] == [r["validation_loss"] for r in model.log]


def test_tensorboard_events_are_written(rain, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = Nowcaster(**{**SMALL, "epochs": 2}, tensorboard=True).fit(rain(40), directory=tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = [e.value for e in events.Scalars("validation_loss")]
    assert values == pytest.approx([r["validation_loss"] for r in model.log], rel=1e-6)


def test_the_best_epoch_is_kept_and_patience_stops(rain):
    # A learning rate that ruins the weights: the first epochs are the best, and patience ends the run.
    model = Nowcaster(
        **{**SMALL, "epochs": 30, "learning_rate": 0.3, "average": 0.0, "patience": 2, "precision": "fp32"},
        residual=False,  # else persistence would be the best
    ).fit(rain(40))
    losses = [r["validation_loss"] for r in model.log]
    assert len(losses) < 30
    assert int(np.argmin(losses)) == len(losses) - 3
    best = training.evaluate(model.network, *validation_of(model, rain(40)), device=torch.device("cpu"))
    assert best == pytest.approx(min(losses), rel=1e-5)


def validation_of(model, cube):
    from cubecast.losses import build_loss
    from cubecast.preparation import prepare

    data = prepare([cube], [], [], config=model.config, ranks=Ranks())
    return build_loss(model.config.loss, []), data.validation


def test_training_that_is_worse_than_persistence_keeps_persistence_and_says_so(rain, caplog):
    cube = rain(40)
    model = Nowcaster(**SMALL, learning_rate=1.0).fit(cube)
    assert "no epoch came below the validation loss of the untrained network" in caplog.text
    forecast = model.predict(cube)["rainfall_rate"]
    last = cube.isel(time=-1).values
    for lead in range(2):
        np.testing.assert_allclose(forecast.isel(forecast_reference_time=0, lead_time=lead), last, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_is_loud(rain):
    cube, model = rain(40), Nowcaster(**SMALL, learning_rate=1e30)
    with pytest.raises(FailedError, match=r"no longer finite.*lower learning_rate"):
        model.fit(cube)


def test_time_limit_stops_training(rain):
    model = Nowcaster(**{**SMALL, "epochs": 10_000, "patience": None}, max_minutes=0.02).fit(rain(40))
    assert len(model.log) < 10_000
    assert model.log[-1]["learning_rate"] < 0.8 * 1e-3


def test_a_time_limit_before_the_first_epoch_says_so(rain, caplog):
    model = Nowcaster(**SMALL, max_minutes=1e-6).fit(rain(40))
    assert not model.log
    assert "max_minutes passed before the first epoch" in caplog.text


def test_a_time_limit_that_is_not_reached_changes_nothing(rain):
    free, limited = Nowcaster(**SMALL).fit(rain(40)), Nowcaster(**SMALL, max_minutes=60).fit(rain(40))
    assert [r["learning_rate"] for r in free.log] == [r["learning_rate"] for r in limited.log]
    assert equal(weights(free), weights(limited))


def test_learning_rate_rises_then_falls():
    rates = [training._rate(s, 0.1) for s in (0.0, 0.05, 0.1, 0.5, 1.0)]
    assert rates[0] < rates[1] < rates[2] == 1.0 > rates[3] > rates[4]
    assert rates[4] == pytest.approx(0.01)


def test_bf16_autocast_trains_and_weights_stay_fp32(rain):
    model = Nowcaster(**SMALL, precision="bf16").fit(rain(40))
    assert all(math.isfinite(r["validation_loss"]) for r in model.log)
    assert {v.dtype for v in model.network.state_dict().values()} == {torch.float32}


def test_unknown_device_is_refused():
    with pytest.raises(InputError, match="device 'tpu9'"):
        training.choose_device("tpu9")
    assert TrainingConfig().device == "auto"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_training_on_cuda_learns(rain):
    model = Nowcaster(**{**SMALL, "epochs": 8, "learning_rate": 3e-3}, device="cuda").fit(rain(40))
    assert model.log[-1]["validation_loss"] < 0.8 * model.log[0]["validation_loss"]


def test_refit_trains_anew_on_both_parts_for_all_epochs(rain, tmp_path):
    cube = rain(40).copy(deep=True)
    cube[30:] *= 3
    first = Nowcaster(**SMALL).fit(cube)
    model = Nowcaster(**SMALL, refit=True).fit(cube, directory=tmp_path)
    assert [r["validation_loss"] for r in model.log] == [r["validation_loss"] for r in first.log]
    with open(tmp_path / "refit" / LOG, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == SMALL["epochs"]
    assert {r["validation_loss"] for r in rows} == {"nan"}
    assert model.training_period == (cube.time.values[0], cube.time.values[-1])
    assert first.training_period[1] < cube.time.values[-1]
    scales = [m._channels.scalings["rainfall_rate"].scale for m in (first, model)]
    assert scales[0] != scales[1]
    last = {k.removeprefix("average."): v for k, v in load_file(tmp_path / "refit" / CHECKPOINT).items()}
    assert all(torch.equal(last[k], v) for k, v in weights(model).items()), "the averaged weights after the last epoch"


def test_refit_with_validation_cubes_trains_on_them_too(rain):
    model = Nowcaster(**{**SMALL, "epochs": 1}, refit=True).fit(rain(30), validation=rain(12, size=(20, 20)))
    assert [part["frames"] for part in model._about["trained_on"]] == [30, 12]


@pytest.mark.parametrize("last_step", [13, 50])
def test_a_refit_that_is_killed_and_resumed_ends_with_the_same_bits(rain, tmp_path, monkeypatch, last_step):
    settings = {**SMALL, "refit": True}
    whole = Nowcaster(**settings).fit(rain(40), directory=tmp_path / "whole")
    fit_until_killed(Nowcaster(**settings), rain(40), tmp_path / "cut", monkeypatch, step=last_step)
    assert (tmp_path / "cut" / "refit" / CHECKPOINT).exists() == (last_step == 50)
    resumed = Nowcaster(**settings).fit(rain(40), directory=tmp_path / "cut", resume=True)
    assert equal(weights(whole), weights(resumed))
    assert [r["validation_loss"] for r in whole.log] == [r["validation_loss"] for r in resumed.log]
