"""The model that users hold: fit on cubes, predict from a cube, save to a folder, load from one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from cubecast.atomic import make_folder, unchanged_on_error
from cubecast.channels import Channels
from cubecast.checkpoint import REFIT
from cubecast.config import Config
from cubecast.cube import check_cube, cube_step, space_dims
from cubecast.errors import InputError, UsageError
from cubecast.forecast import Run, check_step, reference_index
from cubecast.losses import build_loss
from cubecast.model_folder import read_model, restore_network, write_model
from cubecast.nn import build_network
from cubecast.prediction import start_run
from cubecast.preparation import TrainingData, check_start, describe_model, listed, plain, prepare
from cubecast.progress import Progress
from cubecast.ranks import joined
from cubecast.steps import Step, parse_time
from cubecast.tiling import blank, run_within
from cubecast.training import choose_device, train

Cubes = xr.DataArray | Sequence[xr.DataArray]
Static = xr.Dataset | Sequence[xr.Dataset] | None


class Nowcaster:
    """An encoder-forecaster for fields, or a recurrent network for point series, with all that it needs to be used.

    Args:
        config: the whole configuration; None: the defaults.
        overrides: single settings by name, for example ``Nowcaster(history=6, horizon=12, epochs=10)``.

    Raises:
        UsageError: an unknown setting or a value that is not allowed.
    """

    def __init__(self, config: Config | None = None, /, **overrides: Any) -> None:
        self.config = Config.build(config.model_dump() if config else None, **overrides)
        self.log: list[dict[str, float]] = []
        """One row an epoch: losses of training and validation, learning rate, speed, and 1 for the one that is kept."""
        self.training_period: tuple[Any, Any] | None = None
        """First and last value of the sequence coordinate that the weights and scalings were fitted on."""
        self._network: nn.Module | None = None
        self._channels: Channels | None = None
        self._step: Step | None = None
        self._about: dict[str, Any] = {}

    def fit(
        self,
        cubes: Cubes,
        *,
        validation: Cubes | None = None,
        static: Static = None,
        start: Nowcaster | None = None,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool | Progress = False,
    ) -> Self:
        """Train on one or more cubes of the same variables, units and step; their grids may differ.

        Without ``validation`` the end of each cube's time axis is kept for it, behind an embargo of a whole window.
        Scalings are fitted on the training part only. With the setting ``refit`` a second network is then trained on
        both parts for all epochs, and kept; its checkpoint is in ``directory/refit``, and the log stays that of the
        first, which was validated.

        Args:
            cubes: what to train on.
            validation: cubes of their own to validate on; then all of ``cubes`` trains.
            static: fields (y, x) on the grid of each cube that are given to the network as further channels.
            start: a trained model of the same architecture, whose weights and scalings training starts from.
            directory: where a checkpoint and the CSV log are written after every epoch.
            resume: go on from the checkpoint in ``directory``.
            progress: True for a bar on a terminal.

        Raises:
            FailedError: the loss is no longer finite.
            InputError: cubes that are too short, differ, or are all missing.
            ModelMismatchError, UsageError: cubes or an architecture other than those of ``start``.
            OutputError: ``directory`` cannot be written.
        """
        train_cubes, extra = listed(cubes), [] if validation is None else listed(validation)
        for cube in train_cubes + extra:
            check_cube(cube)
        self._check_kind(train_cubes + extra)
        channels = None if start is None else start._fitted()[1]
        if start is not None:
            check_start(self.config, start.config)
            check_step(train_cubes[0], cube_step(train_cubes[0]), start.step)
        folder = Path(directory) if directory is not None else None
        again = folder / REFIT if folder and self.config.training.refit else None
        given = (train_cubes, extra, [] if static is None else listed(static))
        shown = None if isinstance(progress, bool) else progress
        with unchanged_on_error(self), joined(choose_device(self.config.training.device)) as ranks:
            ready = partial(prepare, *given, config=self.config, channels=channels, ranks=ranks, progress=shown)
            options: dict[str, Any] = {"start": start, "resume": resume, "progress": bool(progress), "ranks": ranks}
            self.log = self._train(ready(), folder, **options)
            if self.config.training.refit:
                self._train(ready(refit=True), again, **options)
        return self

    def _train(
        self, data: TrainingData, folder: Path | None, *, start: Nowcaster | None, **options: Any
    ) -> list[dict[str, float]]:
        """Train a network on prepared data and make it this model's; one log row an epoch."""
        if folder is not None:  # not before: what is refused leaves nothing behind
            make_folder(folder)
        self._channels, self._step, self.training_period = data.channels, data.step, data.period
        seen = ([] if start is None else start._about["trained_on"]) + data.trained_on
        self._about = {"trained_on": [one for i, one in enumerate(seen) if one not in seen[:i]]}
        self._network, rows = train(
            self.initial_network(start),
            build_loss(self.config.loss, data.thresholds),
            data.training,
            data.validation,
            self.config.training,
            directory=folder,
            fingerprint=self.config.to_yaml() + json.dumps(self._about) + data.fingerprint,
            **options,
        )
        return rows

    def predict(
        self,
        cube: xr.DataArray,
        *,
        at: Any = None,
        horizon: int | None = None,
        static: xr.Dataset | None = None,
        device: str | None = None,
        precision: str | None = None,
        members: int | None = None,
        seed: int = 0,
        memory: int | str | None = None,
        progress: Progress | None = None,
    ) -> xr.Dataset:
        """Forecasts after one or many reference times, from the history in ``cube`` alone.

        Args:
            cube: a cube with the model's variables, units and step.
            at: reference time or times, each the time of a frame of the cube; None: its last frame.
            horizon: steps to forecast; None: as many as in training.
            static: the static fields that the model was trained with, on this cube's grid.
            device: where to compute; None: the configured device.
            precision: fp32, bf16 or auto (bf16 where the hardware multiplies it); None: as configured for training.
            members: realizations, of a model that has them; None: one forecast, of such a model their mean.
            seed: of the members; each reference time has noise of its own.
            memory: that the process may take, in bytes or as ``2GB``; None: 4GB. A grid that needs more is forecast in
                tiles, with the same result but for rounding; where the result itself is too large, it is lazy
                (dask), and `cubecast.write_forecast` streams it.
            progress: wraps the loop over reference times.

        Returns:
            Dataset (forecast_reference_time, [realization,] lead_time, y, x), in the cube's units and coordinates.

        Raises:
            ModelMismatchError: another step, other units or variables, fewer frames than the history.
            InputError: a reference time that is not there, missing frames, or nothing observed.
            UsageError: a horizon below 1, another precision, members of a model without noise, too little memory.
        """
        options = {"horizon": horizon, "static": static, "device": device, "precision": precision}
        run = self._run(cube, **options, members=members, seed=seed)
        index = reference_index(cube, at, history=run.history, step=run.step)
        return run_within(run, index, memory=memory, attrs=self._attrs(cube), progress=progress)

    def blank(self, cube: xr.DataArray, *, at: Any, memory: int | str | None = None, **options: Any) -> xr.Dataset:
        """What `predict` would return, all missing and lazy: the frame of a store that forecasts are written into.

        Args:
            cube, at, memory: as in `predict`; the history of a reference need not be complete.
            options: horizon and members.
        """
        return blank(self._run(cube, **options), np.atleast_1d(at), memory=memory, attrs=self._attrs(cube))

    def check(self, cube: xr.DataArray) -> None:
        """Refuse a cube that is not of this model's variables, units and kind; its values are not read.

        Raises:
            InputError: not a cube (see `cubecast.cube`); ModelMismatchError: not one for this model.
        """
        check_cube(cube)
        self._check_kind([cube])
        self._fitted()[1].check(cube)

    def save(self, directory: str | Path) -> Path:
        """Write the model to a folder: weights (safetensors), model.json with SHA-256 of both, and config.yaml.

        Raises:
            OutputError: the folder cannot be written.
        """
        network, channels, step = self._fitted()
        tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        tensors |= {f"scaling.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in channels.arrays().items()}
        about = {
            "step": step.to_dict(),
            "training_period": None if self.training_period is None else [plain(v) for v in self.training_period],
            "channels": channels.to_json(),
            "config": self.config.model_dump(mode="json"),
            "log": self.log,
            **self._about,
        }
        return write_model(directory, tensors, about, settings=self.config.to_yaml())

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """The model in a folder that `save` wrote, or a shipped one by its name; its SHA-256 are checked.

        Raises:
            InputError: no model there, a format that is not known, or one that was changed or cut.
        """
        about, tensors = read_model(directory)
        try:
            model = cls(Config.build(about["config"]))
            model._channels = Channels.from_json(
                about["channels"], {k: v.numpy() for k, v in _under("scaling.", tensors).items()}
            )
            model._step = Step(**about["step"])
            model._network = restore_network(model._build, _under("network.", tensors))
            model.log = list(about["log"])
            model._about = {"trained_on": about["trained_on"]}
            if about["training_period"] is not None:
                first, last = (parse_time(v) if isinstance(v, str) else v for v in about["training_period"])
                model.training_period = (first, last)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"model in {directory} is damaged", found=str(error), remedy="restore the folder"
            ) from None
        return model

    @property
    def network(self) -> nn.Module:
        """The trained torch module, for your own loop: ``network(frames, horizon)`` in model space."""
        return self._fitted()[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The variables that the model forecasts."""
        return self._fitted()[1].outputs

    @property
    def step(self) -> Step:
        """The step of the sequence coordinate that the model was trained for."""
        return self._fitted()[2]

    def initial_network(self, start: Nowcaster | None = None) -> nn.Module:
        """The network before training: by the seed, or with the weights of ``start``. Known after `fit`."""
        torch.manual_seed(self.config.training.seed)
        network = self._build()
        if start is not None:
            network.load_state_dict(start.network.state_dict())
        return network

    def _fitted(self) -> tuple[nn.Module, Channels, Step]:
        if self._network is None or self._channels is None or self._step is None:
            raise UsageError("the model is not trained", remedy="call fit(cube), or Nowcaster.load(folder)")
        return self._network, self._channels, self._step

    def _build(self) -> nn.Module:
        channels = self._channels or self._fitted()[1]  # in training there is no network yet
        return build_network(
            self.config.model,
            in_channels=channels.count_in,
            out_channels=len(channels.outputs),
            static_channels=channels.count_known,
            curvatures=[channels.scalings[name].curvature for name in channels.outputs],
        )

    def _run(self, cube: xr.DataArray, **options: Any) -> Run:
        self.check(cube)
        return start_run(*self._fitted(), self.config, cube, **options)

    def _attrs(self, cube: xr.DataArray) -> dict[str, Any]:
        network, _, step = self._fitted()
        return describe_model(self.config, network, step, trained_on=self._about["trained_on"], cube=cube)

    def _check_kind(self, cubes: Sequence[xr.DataArray]) -> None:
        if not cubes:
            raise UsageError("cubes", found="none", allowed="1 or more")
        field = not self.config.model.is_series
        for cube in cubes:
            if field and len(space_dims(cube)) != 2:
                remedy = "choose cell='lstm', 'gru' or 'elman' for a series"
                what = f"cell {self.config.model.cell!r} with a point series"
                raise UsageError(what, found=f"dims {cube.dims}", allowed="dims (time, y, x)", remedy=remedy)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
