"""From cubes to what the training loop needs: split in time, fit the scalings on the training part, make batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from cubecast.batches import Batches
from cubecast.channels import Channels
from cubecast.config import Config
from cubecast.cube import channel_units, cube_step, iter_blocks, positions, select_channel, sequence_dim
from cubecast.errors import InputError, UsageError
from cubecast.forecast import check_step
from cubecast.progress import Progress
from cubecast.ranks import Ranks
from cubecast.sharing import Share
from cubecast.steps import Step
from cubecast.windows import Window, find_windows, split_windows


@dataclass(frozen=True)
class TrainingData:
    """What a run of training is made of."""

    channels: Channels
    step: Step
    training: Batches
    validation: Batches | None
    """None for a refit."""
    thresholds: list[float]
    """The thresholds of the loss in model space; empty for losses without."""
    period: tuple[Any, Any]
    """First and last value of the sequence coordinate that training saw."""
    fingerprint: str
    """Of all cubes and static fields."""
    trained_on: list[dict[str, Any]]
    """Where the training part came from, for the record."""


def prepare(
    cubes: Sequence[xr.DataArray],
    extra: Sequence[xr.DataArray],
    statics: Sequence[xr.Dataset],
    *,
    config: Config,
    channels: Channels | None = None,
    refit: bool = False,
    ranks: Ranks,
    progress: Progress | None = None,
) -> TrainingData:
    """Windows, channels and batches of ``cubes``; validated on ``extra``, or on the end of their own time axes.

    For a ``refit`` every window of ``cubes`` and ``extra`` trains, and the scalings are fitted on all of them.

    Args:
        cubes: checked cubes to train on.
        extra: checked cubes to validate on; empty: the last ``validation`` share of each cube.
        statics: static fields of ``cubes + extra``, or empty.
        config: the whole configuration.
        channels: those of a model that is trained on; None: fitted on the training part.
        refit: see above.
        ranks: the processes that train together; they share each batch, and this one gets its part of the windows.

    Raises:
        InputError: cubes with another step, too few frames, or nothing observed.
        UsageError: static fields for some of the cubes only.
        ModelMismatchError: cubes that ``channels`` do not fit.
    """
    every = [*cubes, *extra]
    step = _common_step(every, statics)
    windows, checks = (_windows(every, config), []) if refit else _split(cubes, extra, config)
    parts = _parts(every if refit else cubes, windows, ranks.reading)
    if channels is None:
        channels = _fit_channels(parts, statics, config, ranks.reading)
    for cube in every:
        channels.check(cube)
    wet_bias = _wet_bias(channels, config)
    shared = config.data.model_copy(update={"batch_size": ranks.share(config.data.batch_size)})
    planes = [channels.static_planes(statics[i] if statics else None, cube) for i, cube in enumerate(every)]

    def batches(chosen: Sequence[Window], train: bool) -> Batches:
        return Batches(
            every,
            chosen,
            channels,
            task=config.task,
            data=shared,
            static=planes,
            wet_bias=wet_bias,
            seed=config.training.seed,
            train=train,
            share=ranks.reading,
            progress=progress,
        )

    dim = sequence_dim(parts[0])
    return TrainingData(
        channels=channels,
        step=step,
        training=batches(windows, True),
        validation=batches(checks, False) if checks else None,
        thresholds=_loss_thresholds(channels, parts[0], config),
        period=(min(p[dim].values[0] for p in parts), max(p[dim].values[-1] for p in parts)),
        trained_on=[describe_source(part) for part in parts],
        fingerprint=_fingerprint(every, statics),
    )


def _fingerprint(cubes: Sequence[xr.DataArray], statics: Sequence[xr.Dataset]) -> str:
    """All cubes, what their channels are, and the static fields: those of a run that is resumed must be the same."""
    digest = hashlib.sha256()
    for name, field in (pair for fields in statics for pair in fields.items()):
        digest.update(str(name).encode() + field.values.tobytes())
    return json.dumps([[describe_source(cube), channel_units(cube)] for cube in cubes] + [digest.hexdigest()])


def check_start(config: Config, start: Config) -> None:
    """Refuse to start training from a model of another architecture or scaling.

    Raises:
        UsageError: they differ.
    """
    for room in ("model", "scaling"):
        own, other = getattr(config, room), getattr(start, room)
        differ = [n for n in type(own).model_fields if getattr(own, n) != getattr(other, n)]
        if differ:
            raise UsageError(
                f"settings of {room} of a model that starts from another",
                found=", ".join(f"{n}={getattr(own, n)}" for n in differ),
                allowed=", ".join(f"{n}={getattr(other, n)}" for n in differ),
            )


def _fit_channels(
    parts: Sequence[xr.DataArray], statics: Sequence[xr.Dataset], config: Config, share: Share
) -> Channels:
    return Channels.fit(
        parts,
        outputs=config.task.outputs,
        scaling=config.scaling,
        mask_channel=config.model.mask_channel,
        position=config.model.position,
        season=config.model.season,
        static=statics,
        share=share,
    )


def _common_step(cubes: Sequence[xr.DataArray], statics: Sequence[xr.Dataset]) -> Step:
    """The step of all cubes, each of which has its static fields if any has."""
    if statics and len(statics) != len(cubes):
        raise UsageError("static fields", found=f"{len(statics)} for {len(cubes)} cubes", allowed="one for each cube")
    step = cube_step(cubes[0])
    for cube in cubes:
        check_step(cube, cube_step(cube), step)
    return step


def _wet_bias(channels: Channels, config: Config) -> float:
    """How much crops favour wet places: as configured for rain, not at all for other fields."""
    kinds = [scaling.kind for scaling in channels.scalings.values()]
    if config.data.negate and {"log", "dbr"} & set(kinds):
        raise UsageError("setting negate", found=f"scaling {kinds}", allowed="monthly_anomaly, standardise, identity")
    return config.data.wet_bias if kinds[0] in ("log", "dbr") else 0.0


def _split(
    cubes: Sequence[xr.DataArray], extra: Sequence[xr.DataArray], config: Config
) -> tuple[list[Window], list[Window]]:
    """Training and validation windows over ``cubes + extra``."""
    length, stride = config.task.history + config.task.horizon, config.data.stride
    if not extra:
        return split_windows(cubes, length=length, validation=config.data.validation, stride=stride)
    both = (_windows(cubes, config), _windows(extra, config, offset=len(cubes)))
    for side, group in enumerate((cubes, extra)):
        if not both[side]:
            raise InputError(
                ("training", "validation")[side] + " cubes are too short",
                found=f"{[c.shape[0] for c in group]} frames",
                allowed=f"{length} frames in a row or more (history + horizon)",
            )
    return both


def _windows(cubes: Sequence[xr.DataArray], config: Config, *, offset: int = 0) -> list[Window]:
    """Every window of some cubes, the first of which is number ``offset``."""
    length, stride = config.task.history + config.task.horizon, config.data.stride
    found = [find_windows(c, length=length, stride=stride, index=i + offset) for i, c in enumerate(cubes)]
    return [window for windows in found for window in windows]


def _parts(cubes: Sequence[xr.DataArray], windows: Sequence[Window], share: Share) -> list[xr.DataArray]:
    """The frames that the training windows cover, of each cube that has any."""
    stops = [max((w.start + w.length for w in windows if w.cube == i), default=0) for i in range(len(cubes))]
    parts = [c.isel({sequence_dim(c): slice(0, stop)}) for c, stop in zip(cubes, stops, strict=True) if stop]
    found = any(np.isfinite(values).any() for part in parts for _, values in iter_blocks(part, share))
    if not share.add(np.array([found], np.float64)).any():
        raise InputError(
            "the training part is all missing", found="no observed value", remedy="look at it with cubecast info"
        )
    return parts


def _loss_thresholds(channels: Channels, part: xr.DataArray, config: Config) -> list[float]:
    """The thresholds of the balanced loss in model space, on the scale of the first output."""
    if config.loss.kind not in ("balanced", "crps") or not config.loss.thresholds:
        return []
    name = channels.outputs[0]
    scaling = channels.scalings[name]
    if scaling.kind == "monthly_anomaly":
        raise UsageError(
            f"thresholds of the loss {config.loss.kind!r} with monthly anomalies",
            allowed="with the scalings log, dbr, standardise or identity",
            remedy="set thresholds=[] and weights=[1]",
        )
    attrs = select_channel(part, name).attrs
    flat = xr.DataArray(np.array(config.loss.thresholds), dims=sequence_dim(part), attrs=attrs, name=name)
    return [float(v) for v in scaling.encode(flat).values]


def listed(values: Any) -> list[Any]:
    """One, or several, as a list."""
    return [values] if isinstance(values, xr.DataArray | xr.Dataset) else list(values)


def describe_source(cube: xr.DataArray) -> dict[str, Any]:
    """What a cube was, in plain values: for the record in saved models and forecasts."""
    dim = sequence_dim(cube)
    return {
        "name": str(cube.name),
        "first": plain(cube[dim].values[0]),
        "last": plain(cube[dim].values[-1]),
        "frames": int(cube.shape[0]),
        "missing_frames": int(positions(cube)[-1] + 1 - cube.shape[0]) if cube.shape[0] > 1 else 0,
        "shape": [int(n) for n in cube.shape[1:]],
        "source": str(cube.attrs.get("source", cube.encoding.get("source", ""))),
    }


def describe_model(
    config: Config, network: nn.Module, step: Step, *, trained_on: list[Any], cube: xr.DataArray
) -> dict[str, Any]:
    """Which model, version, weights and data a forecast from ``cube`` was made with: its global attributes."""
    digest = hashlib.sha256(b"".join(v.cpu().numpy().tobytes() for v in network.state_dict().values()))
    return {
        "title": f"Nowcast of {cube.attrs.get('long_name', cube.name)}",
        "source": f"cubecast {version('cubecast')}, {config.model.cell} encoder-forecaster, step {step}",
        "model": json.dumps(config.model.model_dump(mode="json")),
        "model_weights_sha256": digest.hexdigest(),
        "model_trained_on": json.dumps(trained_on),
        "input_data": json.dumps(describe_source(cube)),
    }


def plain(value: Any) -> Any:
    """A value of the sequence coordinate for JSON: ISO text for times, a float for numbers."""
    return str(value.astype("datetime64[s]")) if isinstance(value, np.datetime64) else float(value)
