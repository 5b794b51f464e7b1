"""``cube.nowcast``: the main calls on an xarray.DataArray, once cubecast is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from cubecast.cube import check_cube

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cubecast.nowcaster import Nowcaster


@xr.register_dataarray_accessor("nowcast")
class NowcastAccessor:
    """What cubecast can tell, forecast and draw of a cube."""

    def __init__(self, cube: xr.DataArray) -> None:
        self._cube = cube

    def info(self, *, history: int = 6, horizon: int = 12) -> dict[str, Any]:
        """What ``cubecast info`` prints: dims, step, gaps, units, CRS, wet and missing fractions, windows."""
        from cubecast.info import describe

        return describe(check_cube(self._cube), history=history, horizon=horizon)

    def predict(self, model: Nowcaster, **options: Any) -> xr.Dataset:
        """`Nowcaster.predict` of this cube."""
        return model.predict(self._cube, **options)

    def plot(self, *, at: Any = None, **options: Any) -> Figure:
        """A map of one frame, the last one by default; options as in `cubecast.maps.plot_field`."""
        from cubecast.maps import plot_field

        cube = check_cube(self._cube)
        dim = str(cube.dims[0])
        frame = cube.isel({dim: -1}) if at is None else cube.sel({dim: at})
        return plot_field(frame.load(), **options)
