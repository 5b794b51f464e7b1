"""``cube.nowcast``: the main calls on an xarray.DataArray, once cubecast is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from cubecast.cube import check_cube
from cubecast.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cubecast.nowcaster import Nowcaster


@xr.register_dataarray_accessor("nowcast")
class NowcastAccessor:
    """What cubecast can tell, forecast and draw of a cube."""

    def __init__(self, cube: xr.DataArray) -> None:
        self._cube = cube

    def info(self, *, history: int = 6, horizon: int = 12) -> dict[str, Any]:
        """What ``cubecast info`` prints: dims, step, gaps, units, CRS, wet and missing fractions, windows.

        Raises:
            InputError: not a cube (`cubecast.check_cube`).
        """
        from cubecast.info import describe

        return describe(check_cube(self._cube), history=history, horizon=horizon)

    def predict(self, model: Nowcaster, **options: Any) -> xr.Dataset:
        """`Nowcaster.predict` of this cube, with its options and errors."""
        return model.predict(self._cube, **options)

    def plot(self, *, at: Any = None, **options: Any) -> Figure:
        """A map of one frame, the last one by default; options as in `cubecast.maps.plot_field`.

        Raises:
            InputError: not a cube of fields, or no frame of the time ``at``.
        """
        from cubecast.maps import plot_field

        cube = check_cube(self._cube)
        dim = str(cube.dims[0])
        try:
            frame = cube.isel({dim: -1}) if at is None else cube.sel({dim: at})
        except (KeyError, TypeError, ValueError):
            first, last = cube[dim].values[[0, -1]]
            raise InputError("frame to plot", found=at, allowed=f"one of those from {first} to {last}") from None
        return plot_field(frame.load(), **options)
