"""Cubes from files, stores and xarray objects."""

from cubecast.sources.opening import open_cube, open_cubes, open_static

__all__ = ["open_cube", "open_cubes", "open_static"]
