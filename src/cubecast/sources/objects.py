"""Cubes from xarray objects: the same rules as for files, on what the caller opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from cubecast.cf import PACKING
from cubecast.cube import CHANNEL, channel_names
from cubecast.errors import InputError
from cubecast.sources.axes import Axes, choose_variables, find_axes, find_period, no_variable, space_coords
from cubecast.sources.blocks import block_sizes
from cubecast.sources.coding import Array, is_unsigned, valid_limits
from cubecast.sources.layout import rate_factors, sequence_attrs
from cubecast.sources.times import Times, decode, keep_order, read_times
from cubecast.sources.values import Limits, Meaning, interpret, warn_removed


def from_object(
    source: xr.Dataset | xr.DataArray, names: tuple[str | None, ...], *, chunks: Mapping[str, int] | None
) -> list[tuple[str | None, xr.DataArray]]:
    """(as asked for, lazy cube) for each of ``names`` that is there; None: the only variable.

    Raises:
        InputError: none of the variables is there, or one is not what a cube must be.
    """
    if isinstance(source, xr.DataArray) and CHANNEL in source.dims:
        return [(None, _channels(source, names))]
    where = "the DataArray" if isinstance(source, xr.DataArray) else "the Dataset"
    ds, only = _as_dataset(source)
    chosen: list[tuple[str | None, str]] = [(None, only)] if only and names == (None,) else []
    return [(a, _cube(ds, n, where, chunks)) for a, n in chosen or choose_variables(ds, names, where=where)]


def _as_dataset(source: xr.Dataset | xr.DataArray) -> tuple[xr.Dataset, str | None]:
    """The object as a Dataset, and the variable that a DataArray is."""
    if isinstance(source, xr.Dataset):
        return source, None
    name = "value" if source.name is None or source.name in source.coords else str(source.name)
    return source.to_dataset(name=name), name


def _channels(source: xr.DataArray, names: tuple[str | None, ...]) -> xr.DataArray:
    """A cube that has channels already; ``names`` selects some."""
    if names == (None,):
        return source
    known = channel_names(source)
    for name in names:
        if name not in known:
            raise no_variable([name], known, "the DataArray")
    return source.sel({CHANNEL: list(names)})


def _cube(ds: xr.Dataset, name: str, where: str, chunks: Mapping[str, int] | None) -> xr.DataArray:
    axes = find_axes(ds, name, where=where)
    variable = _unpacked(ds.variables[name])
    meaning = interpret(name, variable.attrs, where=where)
    if variable.dtype.kind not in "fiu":
        raise InputError(f"values of {name!r}", found=f"type {variable.dtype}", allowed="numbers")
    sequence = decode([_times(ds, axes).stamps], [where])[0]
    coords = space_coords(ds, name, axes)
    mapping = next((n for n, v in coords.items() if not v.dims), None)
    attrs = {**meaning.attrs, "grid_mapping": mapping} if mapping else meaning.attrs
    data = _arranged(variable, axes, chunks)
    dims = (axes.dim, *axes.space)
    coords[axes.dim] = xr.Variable(axes.dim, sequence, sequence_attrs(ds.variables[axes.sequence], axes.dim))
    cube = xr.DataArray(data.data, dims=dims, coords=coords, name=meaning.name, attrs=attrs)
    if meaning.amount is not None:
        times = _times(ds, axes, find_period(ds, axes))
        factor = rate_factors(meaning.amount, [times], [where], name)[0]
        cube = cube.copy(data=(cube * xr.DataArray(factor.astype(cube.dtype), dims=axes.dim)).data)
    cube = _cleaned(cube, meaning, variable, where)
    keep = keep_order(sequence)
    return cube if np.array_equal(keep, np.arange(len(sequence))) else cube.isel({axes.dim: keep})


def _unpacked(variable: xr.Variable) -> xr.Variable:
    """A variable that was opened without decoding, decoded: what its attributes say of missing values and packing."""
    if not set(PACKING) & set(variable.attrs):
        return variable
    stored = variable.copy(deep=False)
    stored.encoding = {k: v for k, v in variable.encoding.items() if k not in PACKING}
    return xr.conventions.decode_cf_variable("", stored, decode_times=False, decode_timedelta=False)


def _times(ds: xr.Dataset, axes: Axes, period: tuple[str, ...] = ()) -> Times:
    return read_times(lambda n: (ds.variables[n].values, ds.variables[n].attrs), axes.sequence, period)


def _arranged(variable: xr.Variable, axes: Axes, chunks: Mapping[str, int] | None) -> xr.Variable:
    """The variable with the dims of a cube, in dask chunks, floating point."""
    order = [d for d in (axes.along, *axes.space) if d is not None]
    variable = variable.isel({d: 0 for d in variable.dims if d not in order}).transpose(*order)
    dims = (axes.dim, *axes.space)
    if variable.chunks is None or chunks:
        preferred = variable.encoding.get("preferred_chunks", {})
        stored = tuple(preferred.get(d, 1 if d == axes.along else n) for d, n in variable.sizes.items())
        shape = variable.shape
        if axes.along is None:
            stored, shape = (1, *stored), (1, *shape)
        sizes = block_sizes(dims, shape, stored=stored, itemsize=variable.dtype.itemsize, asked=chunks)
        if variable.chunks is not None:  # keep what was not asked for
            own = variable.chunks if axes.along is not None else ((1,), *variable.chunks)
            sizes = tuple(s if d in (chunks or {}) else c for d, s, c in zip(dims, sizes, own, strict=True))
        variable = variable.chunk(dict(zip(order, sizes[-len(order) :], strict=True)) if order else {})
    if variable.dtype.kind != "f":
        variable = variable.astype(np.float64 if variable.dtype.itemsize > 2 else np.float32)
    return variable if axes.along is not None else variable.set_dims((axes.dim, *order))


def _cleaned(cube: xr.DataArray, meaning: Meaning, variable: xr.Variable, where: str) -> xr.DataArray:
    """NaN for values outside of the declared valid range and of what can be."""
    packing = variable.encoding
    dtype = np.dtype(packing.get("dtype", float))
    low, high, in_values = valid_limits(variable.attrs, dtype, unsigned=is_unsigned(packing))
    if "scale_factor" in packing and not in_values:
        gain, offset = float(packing["scale_factor"]), float(packing.get("add_offset", 0.0))
        # half a step of slack: the decoded numbers are rounded
        low, high = (None if v is None else v * gain + offset + s * gain / 2 for v, s in ((low, -1), (high, 1)))
    declared = (-np.inf if low is None else low, np.inf if high is None else high)
    clean = _Cleaner(declared, meaning.limits, meaning.name, where)
    return cube.copy(data=cube.data.map_blocks(clean, dtype=cube.dtype, meta=np.empty((0,) * cube.ndim, cube.dtype)))


@dataclass(slots=True)
class _Cleaner:
    """Blocks of values without what is outside of the declared range or cannot be; says once what that was."""

    declared: tuple[float, float]
    limits: Limits
    name: str
    where: str
    warned: bool = False

    def __call__(self, values: Array) -> Array:
        outside = (values < self.declared[0]) | (values > self.declared[1])
        if outside.any():
            values = np.where(outside, values.dtype.type(np.nan), values)
        values, removed = self.limits.apply(values)
        if removed and not self.warned:
            self.warned = True
            warn_removed(removed, self.name, self.where)
        return values
