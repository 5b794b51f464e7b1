"""Zarr stores, version 2 and 3, in a folder or at any fsspec URL."""

from __future__ import annotations

import warnings

import xarray as xr
import zarr

from cubecast.errors import CubecastError
from cubecast.sources.axes import choose_variables
from cubecast.sources.blocks import READ_ERRORS, Opened, damaged, read_opened
from cubecast.sources.chunks import PlainChunks
from cubecast.sources.coding import cf_coding
from cubecast.sources.layout import Found, learn

_FIELDS = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
_DAMAGED_MEMBER = f"Object at ({'|'.join(_FIELDS)}) is not recognized"
"""zarr passes over a variable whose metadata lack a field with a warning, which names the field."""


def scan(path: str, names: tuple[str | None, ...]) -> list[Found]:
    """The variables ``names`` (None: the only one) of a store; of several names, those that are there.

    Raises:
        InputError: the store cannot be read, or has none of the variables.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", _DAMAGED_MEMBER)
            group = zarr.open_group(path, mode="r")
            ds = xr.open_dataset(
                group.store,  # type: ignore[arg-type]  # xarray takes Zarr stores, its annotation does not say so
                engine="zarr",
                group=group.path or None,
                consolidated=group.metadata.consolidated_metadata is not None,
                zarr_format=group.metadata.zarr_format,
                mask_and_scale=False,
                decode_times=False,
                cache=False,
            )
            return [_found(ds, group, asked, name, path) for asked, name in choose_variables(ds, names, where=path)]
    except CubecastError:
        raise
    except (
        ImportError,
        UserWarning,
        *READ_ERRORS,
    ) as error:  # ImportError: fsspec lacks the package for the URL's protocol
        raise damaged(path, error) from error


def _found(ds: xr.Dataset, group: zarr.Group, asked: str | None, name: str, path: str) -> Found:
    variable = ds.variables[name]
    chunks = variable.encoding.get("shards") or variable.encoding.get("chunks")
    learnt = learn(ds, name, read=read_opened, chunks=chunks, where=path)
    coding = cf_coding(variable.attrs, variable.dtype)
    array = group[name]
    plain = PlainChunks.of(array) if isinstance(array, zarr.Array) and array.dtype == variable.dtype else None
    return Found(learnt.layout, Opened(path, variable, coding, plain), learnt.times, asked)
