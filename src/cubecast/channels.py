"""Which variables go in and out of a network, in which order, at which scale: cubes to arrays and back.

An array of model space is float32 ``(time, channel, y, x)``; a point series has ``y`` = stations and ``x`` = 1.
Channels: the outputs first, then the other inputs, then (``mask_channel``) one plane of 1 = observed for every
input, then what is known beforehand: static fields, (``position``) where each pixel is, (``season``) the time of year.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.config import ScalingConfig
from cubecast.cube import channel_names, channel_units, is_latlon, same_places, select_channel, space_dims
from cubecast.errors import InputError, ModelMismatchError, UsageError
from cubecast.scaling import Scaling, choose_scaling, scaling_from_json
from cubecast.sharing import ALL, Share
from cubecast.units import canonical

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Channels:
    """The channels of a model: names, units, scalings, mask policy and static fields."""

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    units: Mapping[str, str]
    scalings: Mapping[str, Scaling]
    mask_channel: bool
    static: Mapping[str, tuple[float, float]]
    """Mean and standard deviation of each static field over the training cubes."""
    position: bool = False
    """Whether the three coordinates of each pixel on the unit sphere are channels."""
    season: bool = False
    """Whether sine and cosine of the time of year are channels."""

    @classmethod
    def fit(
        cls,
        parts: Sequence[xr.DataArray],
        *,
        outputs: Sequence[str] | None,
        scaling: ScalingConfig,
        mask_channel: bool,
        position: bool = False,
        season: bool = False,
        static: Sequence[xr.Dataset] = (),
        share: Share = ALL,
    ) -> Self:
        """Channels of the training ``parts`` of cubes, with every scaling fitted on them alone.

        Processes may ``share`` the parts: each reads some of them, and all get the same channels.

        Raises:
            UsageError: an output that is not in the cubes.
            InputError: cubes with different variables or units, or static fields with different names.
        """
        names, units = channel_names(parts[0]), channel_units(parts[0])
        for part in parts[1:]:
            if channel_units(part) != units:
                raise InputError("cubes differ", found=f"{channel_units(part)} and {units}", allowed="one set of units")
        chosen = tuple(outputs or names)
        if len(set(chosen)) < len(chosen) or not set(chosen) <= set(names):
            raise UsageError("outputs", found=", ".join(chosen), allowed=f"each once, of {', '.join(names)}")
        inputs = chosen + tuple(name for name in names if name not in chosen)
        scalings = {}
        for name in inputs:
            single = [select_channel(part, name) for part in parts]
            chosen_scaling = choose_scaling(scaling.kind, single[0], harmonics=scaling.harmonics)
            scalings[name] = chosen_scaling.fit(single, share=share)
        return cls(chosen, inputs, units, scalings, mask_channel, _fit_static(static), position, season)

    @property
    def count_in(self) -> int:
        """Channels of the network's input."""
        return len(self.inputs) * (2 if self.mask_channel else 1) + self.count_known

    @property
    def count_known(self) -> int:
        """The last of these: static fields, position and season."""
        return len(self.static) + 3 * self.position + 2 * self.season

    def encode(self, window: xr.DataArray) -> Array:
        """Model-space values (time, channel, y, x) of a loaded piece of a cube; NaN where missing."""
        called = self.called(window)
        planes = [_grid(self.scalings[n].encode(select_channel(window, called[n])).values) for n in self.inputs]
        return np.stack(planes, axis=1)

    def called(self, cube: xr.DataArray) -> dict[str, str]:
        """What each input is called in a cube: a model of one takes it by any name."""
        found = self.inputs if len(self.inputs) > 1 else channel_names(cube)
        return dict(zip(self.inputs, found, strict=True))

    def frames(self, encoded: Array, static: Array | None, times: Array) -> Array:
        """The network's input for encoded history frames: missing values become 0, mask and known fields are added.

        Args:
            encoded: (time, channel, y, x), from `encode`.
            static: (field, y, x), from `static_planes`.
            times: the sequence coordinate of the frames.

        Raises:
            UsageError: the season is a channel and the sequence is not one of times.
        """
        observed = np.isfinite(encoded)
        parts = [np.where(observed, encoded, np.float32(0))]
        if self.mask_channel:
            parts.append(observed.astype(np.float32))
        if static is not None:
            parts.append(np.broadcast_to(static, (len(encoded), *static.shape)))
        if self.season:
            parts.append(np.broadcast_to(season_of(times)[..., None, None], (len(encoded), 2, *encoded.shape[2:])))
        return np.concatenate(parts, axis=1)

    def decode(self, name: str, values: Array, like: xr.DataArray) -> Array:
        """Values in the cube's units of model-space values (time, y, x), at the coordinates of ``like``."""
        return self.scalings[name].decode(like.copy(data=values.reshape(like.shape))).values

    def static_planes(self, static: xr.Dataset | None, cube: xr.DataArray) -> Array | None:
        """Standardised static fields and position (field, y, x) on the grid of ``cube``; None when there are none.

        Raises:
            ModelMismatchError: fields are missing or lie on another grid.
            UsageError: the position is a channel and the grid is not one of latitude and longitude.
        """
        where = [_position(cube)] if self.position else []
        if not self.static:
            return where[0] if where else None
        absent = [n for n in self.static if static is None or n not in static]
        if absent or static is None:
            raise ModelMismatchError("static fields", found=f"no {', '.join(absent)}", allowed=", ".join(self.static))
        space = space_dims(cube)
        planes = []
        for name, (mean, std) in self.static.items():
            field = static[name]
            if set(field.dims) != set(space) or not same_places(field, cube, space):
                raise ModelMismatchError(
                    f"static field {name!r} on another grid",
                    found=_extent(field, field.dims),
                    allowed=_extent(cube, space),
                    remedy="interpolate it: field.interp_like(cube)",
                )
            values = field.transpose(*space).values
            planes.append(np.nan_to_num((_grid(values[None])[0] - mean) / std).astype(np.float32))
        return np.concatenate([np.stack(planes), *where])

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the arrays of the scalings are apart, in `arrays`."""
        return {
            "outputs": list(self.outputs),
            "inputs": list(self.inputs),
            "units": dict(self.units),
            "scalings": {n: s.to_json() for n, s in self.scalings.items()},
            "mask_channel": self.mask_channel,
            "static": {n: list(v) for n, v in self.static.items()},
            "position": self.position,
            "season": self.season,
        }

    def arrays(self) -> dict[str, Array]:
        """The arrays of the scalings, by ``variable/name``."""
        return {f"{n}/{key}": a for n, s in self.scalings.items() for key, a in s.arrays().items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """The inverse of `to_json` and `arrays`."""
        scalings = {}
        for name, scaling in values["scalings"].items():
            own = {key.removeprefix(f"{name}/"): a for key, a in arrays.items() if key.startswith(f"{name}/")}
            scalings[name] = scaling_from_json(scaling, own)
        return cls(
            outputs=tuple(values["outputs"]),
            inputs=tuple(values["inputs"]),
            units=dict(values["units"]),
            scalings=scalings,
            mask_channel=bool(values["mask_channel"]),
            static={n: (float(v[0]), float(v[1])) for n, v in values["static"].items()},
            position=bool(values.get("position", False)),
            season=bool(values.get("season", False)),
        )

    def check(self, cube: xr.DataArray) -> None:
        """Refuse a cube whose variables or units are not those of the model.

        Raises:
            ModelMismatchError: what was found, what the model takes, and the remedy.
        """
        found = channel_units(cube)
        if set(found) != set(self.inputs) and not (len(found) == len(self.inputs) == 1):
            raise ModelMismatchError(
                "variables",
                found=", ".join(found),
                allowed=", ".join(self.inputs),
                remedy="open it with variable=[...]",
            )
        for name, units in zip(sorted(found), sorted(self.inputs), strict=True):
            if found[name] != self.units[units]:
                raise ModelMismatchError(
                    f"units of {name!r}",
                    found=repr(found[name]),
                    allowed=repr(self.units[units]),
                    remedy="convert with cubecast.convert_units",
                )


def preset_for(cube: xr.DataArray) -> str:
    """The preset (`cubecast.presets.PRESETS`) that suits a cube: by its space dims, units and step.

    rain for rain and for reflectivity in dBZ, sst for temperature on a monthly step, general for other fields.
    """
    if len(space_dims(cube)) < 2:
        return "series"
    first = select_channel(cube, channel_names(cube)[0])
    if canonical(str(first.attrs.get("units", ""))) == "dBZ":
        return "rain"
    return {"log": "rain", "monthly_anomaly": "sst"}.get(choose_scaling("auto", first).kind, "general")


def _extent(field: xr.DataArray, dims: Sequence[Hashable]) -> str:
    """Sizes of dims, and where they go from and to."""
    known = {d: field[d].values for d in dims if d in field.coords and field.sizes[d]}
    ends = {d: f" from {values[0]:g} to {values[-1]:g}" for d, values in known.items()}
    return ", ".join(f"{d} {field.sizes[d]}{ends.get(d, '')}" for d in dims)


def _grid(values: Array) -> Array:
    """(time, *space) as (time, y, x), with size 1 for the space dims that a series lacks."""
    return values.reshape(*values.shape, *(1,) * (3 - values.ndim)).astype(np.float32, copy=False)


def _position(cube: xr.DataArray) -> Array:
    """Where each pixel is on the unit sphere (3, y, x): no seam at the date line, no pole that is a line."""
    if not is_latlon(cube):
        raise UsageError(
            "setting position",
            found=f"grid {space_dims(cube)}",
            allowed="a grid of latitude and longitude in degrees",
            remedy="train with position=false",
        )
    lat, lon = (np.radians(cube[d].values.astype(np.float64)) for d in space_dims(cube))
    lat, lon = np.meshgrid(lat, lon, indexing="ij")
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]).astype(np.float32)


def season_of(times: Array) -> Array:
    """Cosine and sine of the time of year (time, 2)."""
    if times.dtype.kind != "M":
        raise UsageError("setting season", found="a sequence without times", allowed="a datetime64 coordinate")
    year = times.astype("datetime64[Y]")
    first, following = (y.astype("datetime64[ns]") for y in (year, year + 1))
    angle = 2 * np.pi * ((times - first) / (following - first))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def _fit_static(static: Sequence[xr.Dataset]) -> dict[str, tuple[float, float]]:
    if not static:
        return {}
    for fields in static:
        if not isinstance(fields, xr.Dataset) or any(v.dtype.kind not in "iufb" for v in fields.values()):
            found = type(fields).__name__ if not isinstance(fields, xr.Dataset) else "a field that is no number"
            raise InputError("static fields", found=found, allowed="a Dataset of numbers", remedy="array.to_dataset()")
    names = [str(n) for n in static[0].data_vars]
    if any([str(n) for n in s.data_vars] != names for s in static):
        raise InputError("static fields differ between cubes", allowed="the same fields for every cube")
    fitted = {}
    for name in names:
        values = np.concatenate([s[name].values.ravel() for s in static]).astype(np.float64)
        fitted[name] = (float(np.nanmean(values)), float(np.nanstd(values)) or 1.0)
    return fitted
