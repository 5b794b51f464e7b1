"""How files of one kind are laid out, and the cube that all files of one layout make together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from cubecast.errors import InputError
from cubecast.sources.axes import find_axes, find_period, space_coords
from cubecast.sources.blocks import Frames, Reader, Stored, block_sizes, dask_array, keep_frames
from cubecast.sources.coding import value_dtype
from cubecast.sources.times import Array, Times, decode, keep_order, read_times
from cubecast.sources.values import Meaning, interpret
from cubecast.steps import Step, infer_step


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """One variable on one grid, as a kind of file stores it.

    ``dims``, ``coords`` and ``sequence_attrs`` (of the first dim's coordinate) are those of the cube; ``space`` are
    the sizes of its space dims, ``chunks`` those of the stored chunks for all its dims.
    """

    stored: Stored
    meaning: Meaning
    dims: tuple[str, ...]
    coords: dict[str, xr.Variable]
    space: tuple[int, ...]
    chunks: tuple[int, ...] | None
    sequence_attrs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """One variable of one file; ``file`` is what the layout's reader takes, ``asked`` how the caller named it."""

    layout: Layout
    file: Any
    times: Times
    asked: str | None


@dataclass(frozen=True, slots=True)
class Learnt:
    """A layout, the file it was learnt from, and the variables that its times are in."""

    layout: Layout
    times: Times
    sequence: str
    period: tuple[str, ...]


def learn(ds: xr.Dataset, name: str, *, read: Reader, chunks: Sequence[int] | None, where: str) -> Learnt:
    """The layout of the variable ``name`` of a Dataset of stored numbers (or decoded by their engine).

    Args:
        ds: variables as stored, with their attributes.
        name: a variable of it.
        read: reads its numbers.
        chunks: sizes of the stored chunks, in the order of the stored dims.
        where: what to call the file in errors.
    """
    axes, variable = find_axes(ds, name, where=where), ds.variables[name]
    meaning = interpret(name, variable.attrs, where=where)
    period = find_period(ds, axes) if meaning.amount is not None else ()
    times = read_times(lambda n: (ds.variables[n].values, ds.variables[n].attrs), axes.sequence, period)
    dims = [axes.along, *axes.space]
    order = tuple(dims.index(str(d)) if str(d) in dims else None for d in variable.dims)
    coords = space_coords(ds, name, axes)
    mapping = next((n for n, v in coords.items() if not v.dims), None)
    attrs = {**meaning.attrs, "grid_mapping": mapping} if mapping else meaning.attrs
    sizes = dict(zip(map(str, variable.dims), chunks, strict=True)) if chunks else None
    stored = (sizes.get(str(axes.along), 1), *(sizes[d] for d in axes.space)) if sizes else None
    layout = Layout(
        Stored(read, name, order, value_dtype(variable.dtype, variable.attrs), meaning.limits, meaning.name, stored),
        Meaning(meaning.name, attrs, meaning.amount, meaning.limits),
        (axes.dim, *axes.space),
        coords,
        tuple(ds.sizes[d] for d in axes.space),
        stored,
        sequence_attrs(ds.variables[axes.sequence], axes.dim),
    )
    return Learnt(layout, times, axes.sequence, period)


def sequence_attrs(variable: xr.Variable, dim: str) -> dict[str, Any]:
    """The attributes of a sequence coordinate that stay true when it is decoded; units of depths, not of times."""
    kept = ("standard_name", "long_name", "axis", *(() if dim == "time" else ("units", "positive")))
    attrs = {str(k): v for k, v in variable.attrs.items() if k in kept}
    return {**attrs, "standard_name": "time"} if dim == "time" else attrs


def stack(found: Sequence[Found], *, chunks: Mapping[str, int] | None) -> xr.DataArray:
    """The cube of all frames in files of one layout, sorted by time, the first of equal times kept."""
    layout, files = found[0].layout, [f.file for f in found]
    times = decode([f.times.stamps for f in found], files)
    sequence = np.concatenate(times)
    sizes = [len(t) for t in times]
    index = np.stack([np.repeat(np.arange(len(files)), sizes), np.concatenate([np.arange(n) for n in sizes])], axis=1)
    keep = keep_order(sequence, [str(files[i]) for i in index[:, 0]])
    factor, amount = None, layout.meaning.amount
    if amount is not None:
        factor = np.concatenate(rate_factors(amount, [f.times for f in found], files, layout.stored.variable))[keep]
    frames = Frames(layout.stored, files, index=index[keep], factor=factor, space=layout.space)
    blocks = block_sizes(
        layout.dims,
        frames.shape,
        stored=layout.chunks,
        itemsize=frames.dtype.itemsize,
        asked=chunks,
        frames_per_file=max(1, len(keep) // len(files)),
    )
    coords = {**layout.coords, layout.dims[0]: (layout.dims[0], sequence[keep], layout.sequence_attrs)}
    values = dask_array(frames, blocks)
    cube = xr.DataArray(values, dims=layout.dims, coords=coords, name=layout.meaning.name, attrs=layout.meaning.attrs)
    return keep_frames(cube, frames)


def rate_factors(amount: float, times: Sequence[Times], files: Sequence[Any], name: str) -> list[Array]:
    """For each file, what turns its amounts (times ``amount``: in mm) into mm h-1, frame by frame.

    Raises:
        InputError: a file does not say over which time it accumulated.
    """
    periods = [t.period for t in times]
    if None in periods:
        raise InputError(
            f"{name!r} of {files[periods.index(None)]} is an accumulation over an unknown time",
            found="neither time bounds nor a start time",
            allowed="time bounds, or a variable 'start_time' beside the end time",
            remedy="add one of them, or convert it to a rate",
        )
    starts, ends = (decode([p[i] for p in periods if p], files) for i in (0, 1))
    hours = [(end - start) / np.timedelta64(3600, "s") for start, end in zip(starts, ends, strict=True)]
    for file, one in zip(files, hours, strict=True):
        if not (one > 0).all():
            raise InputError(f"accumulation time of {file}", found=f"{one.min():g} h", allowed="more than 0 h")
    return [amount / one for one in hours]


def split_steps(found: Sequence[Found]) -> list[list[Found]]:
    """``found`` in groups of equal steps, where every file has more than one frame; else as it is."""
    times = decode([f.times.stamps for f in found], [f.file for f in found])
    if any(len(t) < 2 for t in times):
        return [list(found)]
    groups: dict[Step, list[Found]] = {}
    for one, values in zip(found, times, strict=True):
        groups.setdefault(infer_step(values[keep_order(values)]), []).append(one)
    return list(groups.values())
