"""Forecasts over whole archives, on the workers of a dask cluster; docs/operations.md says how it is run."""

from cubecast.archive.running import run_archive

__all__ = ["run_archive"]
