"""The model that users hold: fit on cubes, predict from a cube, save to a folder, load from one."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from cubecast.atomic import atomic_path
from cubecast.batches import Batches
from cubecast.channels import Channels
from cubecast.config import Config
from cubecast.cube import check_cube, cube_step, iter_blocks, positions, select_channel, sequence_dim, space_dims
from cubecast.errors import InputError, ModelMismatchError, UsageError
from cubecast.forecast import check_step, reference_index, run_network
from cubecast.losses import build_loss
from cubecast.nn import build_network
from cubecast.progress import Progress
from cubecast.steps import Step
from cubecast.training import choose_autocast, choose_device, train
from cubecast.windows import Window, find_windows, split_windows

log = logging.getLogger(__name__)

FORMAT = 1
MODEL, WEIGHTS, SETTINGS = "model.json", "weights.safetensors", "config.yaml"
_MAX_HEADER = 50 * 2**20

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
        """One row an epoch: training and validation loss, learning rate, samples per second."""
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
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool | Progress = False,
    ) -> Self:
        """Train on one or more cubes of the same variables, units and step; their grids may differ.

        Without ``validation`` the end of each cube's time axis is kept for it, behind an embargo of a whole window.
        Scalings are fitted on the training part only.

        Args:
            cubes: what to train on.
            validation: cubes of their own to validate on; then all of ``cubes`` trains.
            static: fields (y, x) on the grid of each cube that are given to the network as further channels.
            directory: where a checkpoint and the CSV log are written after every epoch.
            resume: go on from the checkpoint in ``directory``.
            progress: True for a bar on a terminal.

        Raises:
            InputError: cubes that are too short, differ, or are all missing.
        """
        train_cubes = [check_cube(c) for c in _listed(cubes)]
        extra = [check_cube(c) for c in _listed(validation)] if validation is not None else []
        every = train_cubes + extra
        statics = _listed(static) if static is not None else []
        if statics and len(statics) != len(every):
            raise UsageError(
                "static fields", found=f"{len(statics)} for {len(every)} cubes", allowed="one for each cube"
            )
        self._check_kind(every)
        self._step = cube_step(every[0])
        for cube in every:
            check_step(cube, cube_step(cube), self._step)
        train_windows, val_windows = self._split(train_cubes, extra)
        parts = [_training_part(c, [w for w in train_windows if w.cube == i]) for i, c in enumerate(train_cubes)]
        parts = [p for p in parts if p.size]
        _check_observed(parts)
        self._channels = Channels.fit(
            parts,
            outputs=self.config.task.outputs,
            scaling=self.config.scaling.kind,
            mask_channel=self.config.model.mask_channel,
            static=statics,
        )
        dim = sequence_dim(parts[0])
        self.training_period = (min(p[dim].values[0] for p in parts), max(p[dim].values[-1] for p in parts))
        self._about = {"trained_on": [_describe(p) for p in parts]}
        folder = Path(directory) if directory is not None else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self.config.training.seed)
        self._network = self._build()
        make = self._batch_maker(every, statics, None if isinstance(progress, bool) else progress)
        self._network, self.log = train(
            self._network,
            build_loss(self.config.loss, self._loss_thresholds(parts[0])),
            make(train_windows, True),
            make(val_windows, False),
            self.config.training,
            directory=folder,
            resume=resume,
            fingerprint=self.config.to_yaml() + json.dumps(self._about),
            progress=bool(progress),
        )
        return self

    def predict(
        self,
        cube: xr.DataArray,
        *,
        at: Any = None,
        horizon: int | None = None,
        static: xr.Dataset | None = None,
        device: str | None = None,
        progress: Progress | None = None,
    ) -> xr.Dataset:
        """Forecasts after one or many reference times, from the history in ``cube`` alone.

        Args:
            cube: a cube with the model's variables, units and step.
            at: reference time or times, each the time of a frame of the cube; None: its last frame.
            horizon: steps to forecast; None: as many as in training.
            static: the static fields that the model was trained with, on this cube's grid.
            device: where to compute; None: the configured device.

        Returns:
            Dataset with dims (forecast_reference_time, lead_time, y, x) in the cube's units and coordinates.

        Raises:
            ModelMismatchError: another step, other units or variables, fewer frames than the history.
            InputError: a reference time that is not there, missing frames, or nothing observed.
        """
        network, channels, step = self._fitted()
        check_cube(cube)
        self._check_kind([cube])
        channels.check(cube)
        history = self.config.task.history
        if cube.shape[0] < history:
            raise ModelMismatchError(
                "the cube is too short", found=f"{cube.shape[0]} frames", allowed=f"{history} or more"
            )
        if cube.shape[0] > 1:
            check_step(cube, cube_step(cube), step)
        steps = self.config.task.horizon if horizon is None else horizon
        if steps < 1:
            raise UsageError("horizon", found=steps, allowed="1 or more")
        place = choose_device(device or self.config.training.device)
        return run_network(
            network.to(place),
            channels,
            cube,
            reference_index(cube, at, history=history, step=step),
            history=history,
            horizon=steps,
            step=step,
            static=channels.static_planes(static, cube),
            device=place,
            autocast=choose_autocast(self.config.training.precision, place),
            attrs=self._attrs(cube),
            progress=progress,
        )

    def save(self, directory: str | Path) -> Path:
        """Write the model to a folder: weights (safetensors), model.json with their SHA-256, and config.yaml.

        Raises:
            OutputError: the folder cannot be written.
        """
        network, channels, step = self._fitted()
        folder = Path(directory)
        tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        tensors |= {f"scaling.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in channels.arrays().items()}
        weights = save_tensors(tensors)
        about = {
            "format": FORMAT,
            "cubecast": version("cubecast"),
            "torch": str(torch.__version__),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "step": step.to_dict(),
            "training_period": None if self.training_period is None else [_plain(v) for v in self.training_period],
            "channels": channels.to_json(),
            "config": self.config.model_dump(mode="json"),
            "log": self.log,
            **self._about,
        }
        with atomic_path(folder / WEIGHTS) as temporary:
            temporary.write_bytes(weights)
        with atomic_path(folder / SETTINGS) as temporary:
            temporary.write_text(self.config.to_yaml(), encoding="utf-8")
        with atomic_path(folder / MODEL) as temporary:
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """The model in a folder that `save` wrote. The SHA-256 of the weights is checked before they are used.

        Raises:
            InputError: no model there, a format that is not known, or weights that were changed or cut.
        """
        folder = Path(directory)
        try:
            about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
            weights = (folder / WEIGHTS).read_bytes()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise InputError(
                f"no readable model in {folder}",
                found=str(error),
                allowed=f"a folder with {MODEL} and {WEIGHTS}",
                remedy="make one with cubecast train -o FOLDER",
            ) from None
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InputError(f"model in {folder}", found="another format", allowed=f"format {FORMAT}")
        if hashlib.sha256(weights).hexdigest() != about.get("weights_sha256"):
            raise InputError(
                f"weights in {folder} were changed or cut", found="another SHA-256", remedy="restore the folder"
            )
        try:
            tensors = load_tensors(weights)
            model = cls(Config.build(about["config"]))
            arrays = {k.removeprefix("scaling."): v.numpy() for k, v in tensors.items() if k.startswith("scaling.")}
            model._channels = Channels.from_json(about["channels"], arrays)
            model._step = Step(**about["step"])
            model._network = model._build()
            state = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
            model._network.load_state_dict(state)
            model.log = list(about["log"])
            model._about = {"trained_on": about["trained_on"]}
            period = about["training_period"]
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
            raise InputError(f"model in {folder} is damaged", found=str(error), remedy="restore the folder") from None
        if period is not None:
            first, last = (np.datetime64(v, "ns") if isinstance(v, str) else v for v in period)
            model.training_period = (first, last)
        return model

    @property
    def network(self) -> nn.Module:
        """The trained torch module, for your own loop: ``network(frames, horizon)`` in model space."""
        return self._fitted()[0]

    @property
    def step(self) -> Step:
        """The step of the sequence coordinate that the model was trained for."""
        return self._fitted()[2]

    def _fitted(self) -> tuple[nn.Module, Channels, Step]:
        if self._network is None or self._channels is None or self._step is None:
            raise UsageError("the model is not trained", remedy="call fit(cube), or Nowcaster.load(folder)")
        return self._network, self._channels, self._step

    def _build(self) -> nn.Module:
        channels = self._channels
        assert channels is not None
        return build_network(
            self.config.model,
            in_channels=channels.count_in,
            out_channels=len(channels.outputs),
            static_channels=len(channels.static),
        )

    def _check_kind(self, cubes: Sequence[xr.DataArray]) -> None:
        field = not self.config.model.is_series
        for cube in cubes:
            if field and len(space_dims(cube)) != 2:
                raise UsageError(
                    f"cell {self.config.model.cell!r} with a point series",
                    found=f"dims {cube.dims}",
                    allowed="dims (time, y, x)",
                    remedy="choose cell='lstm', 'gru' or 'elman' for a series",
                )

    def _split(self, cubes: Sequence[xr.DataArray], extra: Sequence[xr.DataArray]) -> tuple[list[Window], list[Window]]:
        """Training and validation windows over ``cubes + extra``."""
        length = self.config.task.history + self.config.task.horizon
        data = self.config.data
        if not extra:
            return split_windows(cubes, length=length, validation=data.validation, stride=data.stride)
        both: list[list[Window]] = [[], []]
        for side, group, offset in ((0, cubes, 0), (1, extra, len(cubes))):
            for i, cube in enumerate(group):
                both[side] += find_windows(cube, length=length, stride=data.stride, index=i + offset)
            if not both[side]:
                raise InputError(
                    ("training", "validation")[side] + " cubes are too short",
                    found=[c.shape[0] for c in group],
                    allowed=f"{length} frames in a row or more (history + horizon)",
                )
        return both[0], both[1]

    def _batch_maker(
        self, cubes: Sequence[xr.DataArray], statics: Sequence[xr.Dataset], progress: Progress | None
    ) -> Any:
        channels = self._channels
        assert channels is not None
        rain = channels.scalings[channels.outputs[0]].kind in ("log", "dbr")
        planes = [channels.static_planes(statics[i] if statics else None, c) for i, c in enumerate(cubes)]

        def make(windows: Sequence[Window], training: bool) -> Batches:
            return Batches(
                cubes,
                windows,
                channels,
                task=self.config.task,
                data=self.config.data,
                static=planes,
                wet_bias=self.config.data.wet_bias if rain else 0.0,
                seed=self.config.training.seed,
                train=training,
                progress=progress,
            )

        return make

    def _loss_thresholds(self, part: xr.DataArray) -> list[float]:
        """The thresholds of the balanced loss in model space (one value of the first output a threshold)."""
        if self.config.loss.kind != "balanced":
            return []
        channels = self._channels
        assert channels is not None
        name = channels.outputs[0]
        scaling = channels.scalings[name]
        if scaling.kind == "monthly_anomaly":
            raise UsageError("loss 'balanced' with monthly anomalies", allowed="log, dbr, standardise or identity")
        like = select_channel(part, name)
        flat = xr.DataArray(np.array(self.config.loss.thresholds), dims=sequence_dim(part), attrs=like.attrs, name=name)
        return [float(v) for v in scaling.encode(flat).values]

    def _attrs(self, cube: xr.DataArray) -> dict[str, Any]:
        network, _, step = self._fitted()
        digest = hashlib.sha256(b"".join(v.cpu().numpy().tobytes() for v in network.state_dict().values()))
        return {
            "title": f"Nowcast of {cube.attrs.get('long_name', cube.name)}",
            "source": f"cubecast {version('cubecast')}, {self.config.model.cell} encoder-forecaster, step {step}",
            "model": json.dumps(self.config.model.model_dump(mode="json")),
            "model_weights_sha256": digest.hexdigest(),
            "model_trained_on": json.dumps(self._about["trained_on"]),
            "input_data": json.dumps(_describe(cube)),
        }


def _listed(values: Any) -> list[Any]:
    return [values] if isinstance(values, xr.DataArray | xr.Dataset) else list(values)


def _training_part(cube: xr.DataArray, windows: Sequence[Window]) -> xr.DataArray:
    """The frames of a cube that its training windows cover."""
    stop = max((w.start + w.length for w in windows), default=0)
    return cube.isel({sequence_dim(cube): slice(0, stop)})


def _check_observed(parts: Sequence[xr.DataArray]) -> None:
    if not any(np.isfinite(values).any() for p in parts for _, values in iter_blocks(p)):
        raise InputError(
            "the training part is all missing", found="no observed value", remedy="look at it with cubecast info"
        )


def _describe(cube: xr.DataArray) -> dict[str, Any]:
    """What a cube was, in plain values: for the record in saved models and forecasts."""
    dim = sequence_dim(cube)
    return {
        "name": str(cube.name),
        "first": _plain(cube[dim].values[0]),
        "last": _plain(cube[dim].values[-1]),
        "frames": int(cube.shape[0]),
        "missing_frames": int(positions(cube)[-1] + 1 - cube.shape[0]) if cube.shape[0] > 1 else 0,
        "shape": [int(n) for n in cube.shape[1:]],
        "source": str(cube.attrs.get("source", cube.encoding.get("source", ""))),
    }


def _plain(value: Any) -> Any:
    return str(value.astype("datetime64[s]")) if isinstance(value, np.datetime64) else float(value)
