"""Cubes that belong together: same grid and variable become one, several variables become channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from cubecast import units
from cubecast.cube import (
    CHANNEL,
    channel_names,
    channel_units,
    cube_crs,
    cube_step,
    positions,
    same_places,
    sequence_dim,
    space_dims,
)
from cubecast.errors import InputError
from cubecast.sources.times import keep_order
from cubecast.steps import Step

TOLERANCE = 1e-3
"""Latitudes and longitudes that differ by less than this part of their spacing are the same."""


@dataclass(slots=True)
class Part:
    """A cube and where it came from."""

    cube: xr.DataArray
    files: list[str]

    @property
    def origin(self) -> str:
        """Its first file, for messages."""
        return self.files[0]


def join(parts: Sequence[Part]) -> list[Part]:
    """One part for all that have the same grid, variable and units, with their frames in order."""
    groups: list[list[Part]] = []
    for part in parts:
        home = next((g for g in groups if _same_variable(g[0].cube, part.cube) and same_grid(g[0].cube, part.cube)), [])
        if not home:
            groups.append(home)
        home.append(part)
    return [part for group in groups for part in _joined(group)]


def _joined(group: Sequence[Part]) -> list[Part]:
    """One part, or one for each step where the parts have different ones."""
    whole = _concat(group)
    if len(group) == 1 or is_regular(whole.cube) or any(len(p.cube) < 2 for p in group):
        return [whole]
    steps: dict[Step, list[Part]] = {}
    for part in group:
        steps.setdefault(cube_step(part.cube), []).append(part)
    return [_concat(g) for g in steps.values()]


def is_regular(cube: xr.DataArray) -> bool:
    """Whether all frames lie on one step (a single frame does)."""
    try:
        return len(cube) < 2 or positions(cube) is not None
    except InputError:
        return False


def same_grid(a: xr.DataArray, b: xr.DataArray) -> bool:
    """Whether two cubes have the same space coordinates and CRS."""
    space = space_dims(a)
    if space != space_dims(b) or not same_places(a, b, space):
        return False
    units_agree = all(
        units.same(str(a[d].attrs.get("units", "")), str(b[d].attrs.get("units", "")))
        for d in space
        if d in a.coords and d in b.coords
    )
    # latitudes and longitudes of two dims count only where there is nothing else
    curved = [n for n, c in a.coords.items() if c.dims == space and c.ndim > 1 and n in b.coords]
    if not units_agree or (not set(space) <= set(a.coords) and not all(_close(a[n], b[n]) for n in curved)):
        return False
    mapping = [dict(c.coords[m].attrs) if (m := c.attrs.get("grid_mapping")) in c.coords else {} for c in (a, b)]
    return str(mapping[0]) == str(mapping[1]) or cube_crs(a) == cube_crs(b)


def _close(a: xr.DataArray, b: xr.DataArray) -> bool:
    if a.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
        return bool(np.array_equal(a.values, b.values))
    spacing = float(np.nanmedian(np.abs(np.diff(a.values, axis=-1)))) if a.shape[-1] > 1 else 1.0
    return bool(np.allclose(a.values, b.values, rtol=0, atol=TOLERANCE * spacing, equal_nan=True))


def _same_variable(a: xr.DataArray, b: xr.DataArray) -> bool:
    return (a.name, a.dims) == (b.name, b.dims) and channel_units(a) == channel_units(b)


def _concat(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    first = parts[0].cube
    dim = sequence_dim(first)
    labels = [p.origin for p in parts for _ in range(p.cube.sizes[dim])]
    # the coordinates of the first: the others agree with them
    same = [p.cube.assign_coords({n: c for n, c in first.coords.items() if dim not in c.dims}) for p in parts]
    whole = xr.concat(same, dim, coords="minimal", compat="override", join="override", combine_attrs="override")
    keep = keep_order(whole[dim].values, labels)
    if not np.array_equal(keep, np.arange(len(labels))):
        whole = whole.isel({dim: keep})
    return Part(whole, [f for p in parts for f in p.files])


def stack_channels(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """For each grid one cube with a channel for each variable, in the order of ``names`` (as they are in the cubes).

    Raises:
        InputError: a grid lacks a variable, or the variables have no time in common.
    """
    grids: list[list[Part]] = []
    for part in parts:
        home = next((g for g in grids if same_grid(g[0].cube, part.cube)), [])
        if not home:
            grids.append(home)
        home.append(part)
    return [_channel_cube(same, names) for grid in grids for same in _by_step(grid)]


def _by_step(parts: Sequence[Part]) -> list[list[Part]]:
    """All together, or those of each step apart where a variable comes in several."""
    names = [str(p.cube.name) for p in parts]
    if len(set(names)) == len(names):
        return [list(parts)]
    steps: dict[Step, list[Part]] = {}
    for part in parts:
        steps.setdefault(cube_step(part.cube), []).append(part)
    for same in steps.values():
        for name in {str(p.cube.name) for p in same}:
            if len(twice := [p for p in same if p.cube.name == name]) > 1:
                found = "; ".join(map(describe_part, twice[:2]))
                raise InputError(f"variable {name!r} in several parts", found=found, allowed="one of the same units")
    return list(steps.values())


def _channel_cube(parts: Sequence[Part], names: Sequence[str]) -> Part:
    by_name = {str(p.cube.name): p for p in parts}
    absent = [n for n in names if n not in by_name]
    if absent:
        raise InputError(
            f"no variable {', '.join(map(repr, absent))} on the grid of {parts[0].origin}",
            found=", ".join(by_name),
            allowed="all variables on one grid",
        )
    cubes = [by_name[n].cube for n in names]
    dim = sequence_dim(cubes[0])
    common = cubes[0][dim].values
    for cube in cubes[1:]:
        common = np.intersect1d(common, cube[dim].values)
    if not len(common):
        raise InputError(f"variables {', '.join(names)} have no common {dim}", found=parts[0].origin)
    first = cubes[0].coords
    aligned = [
        c.sel({dim: common}).assign_coords({n: v for n, v in first.items() if dim not in v.dims}).drop_attrs(deep=False)
        for c in cubes
    ]
    whole = xr.concat(aligned, xr.Variable(CHANNEL, list(names)), coords="minimal", compat="override", join="override")
    space = space_dims(cubes[0])
    whole = whole.transpose(dim, CHANNEL, *space).rename(None)
    whole = whole.assign_coords(
        channel_units=(CHANNEL, [channel_units(c)[n] for n, c in zip(names, cubes, strict=True)]),
        channel_standard_name=(CHANNEL, [str(c.attrs.get("standard_name", "")) for c in cubes]),
    )
    mapping = cubes[0].attrs.get("grid_mapping")
    whole.attrs = {"grid_mapping": mapping} if mapping else {}
    return Part(whole, [f for n in names for f in by_name[n].files])


def describe_part(part: Part) -> str:
    """File, variable, units and grid in a few words, for messages."""
    cube = part.cube
    grid = " x ".join(f"{d} {cube.sizes[d]}" for d in space_dims(cube)) or "a series"
    edges = "".join(
        f", {d} {cube[d].values[0]:g}..{cube[d].values[-1]:g} {cube[d].attrs.get('units', '')}".rstrip()
        for d in space_dims(cube)
        if d in cube.coords and cube[d].dtype.kind in "iuf"
    )
    unit = ", ".join(channel_units(cube).values())
    return f"{part.origin} ({', '.join(channel_names(cube))} in {unit}, {grid}{edges})"
