"""PGM images of the Finnish Meteorological Institute (plain or gzip): reflectivity, dBZ = (grey - 64) / 2."""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache
from typing import Any

import numpy as np

from cubecast.errors import InputError
from cubecast.sources.axes import no_variable
from cubecast.sources.blocks import Key, Stored, damaged
from cubecast.sources.coding import Array, Coding
from cubecast.sources.layout import Found, Layout
from cubecast.sources.projected import crs_of, grid, project
from cubecast.sources.times import Stamps, Times
from cubecast.sources.values import interpret

NAME = "DBZH"
_ATTRS = {"standard_name": "equivalent_reflectivity_factor", "long_name": "reflectivity", "units": "dBZ"}
# of FMI's composites: sphere, false easting and northing are not in the files
_PROJECTION = "+proj=stere +lat_0={} +lon_0={} +lat_ts={} +a=6371288 +b=6371288 +x_0=380886.31 +y_0=3395677.92"


def scan(path: str, names: tuple[str | None, ...]) -> list[Found]:
    """The image of a file.

    Raises:
        InputError: another name was asked for, or the header is not that of an FMI composite.
    """
    if not {None, NAME} & set(names):
        raise no_variable(names, [NAME], path)
    try:
        header, pixels = _parse(path)
        stamp = header["obstime"][0]
        time = np.array([f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[8:10]}:{stamp[10:12]}"], "datetime64[ns]")
        keys = ("centrallatitude", "centrallongitude", "truelatitude", "bottomleft", "topright")
        layout = _layout(pixels.shape, *(tuple(map(float, header[k])) for k in keys))
    except KeyError as error:
        raise InputError(f"{path} is no FMI composite", found=f"no {error} in its header") from error
    except (OSError, ValueError, IndexError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    return [Found(layout, path, Times(Stamps(time)), NAME if NAME in names else None)]


def read(path: str, _name: str, key: Key) -> tuple[Array, Coding]:
    """Grey values and their coding; 255 is missing."""
    try:
        return _parse(path)[1][key], Coding(0.5, -32.0, (255.0,))
    except (EOFError, zlib.error) as error:
        raise damaged(path, error) from error


def _parse(path: str) -> tuple[dict[str, list[str]], Array]:
    """The words of each header comment by its first word, and the pixels (y, x), north first."""
    with open(path, "rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else open(path, "rb") as file:
        header: dict[str, list[str]] = {}
        numbers: list[int] = []
        while len(numbers) < 3:
            line = file.readline()
            if not line:
                raise ValueError("the header is cut off")
            words = line.decode("latin-1").split()
            if words[:1] == ["#"] and len(words) > 1:
                header.setdefault(words[1], words[2:])
            elif words and words[0] != "P5":
                numbers += map(int, words)
        pixels = np.frombuffer(file.read(), np.uint8)
    nx, ny = numbers[:2]
    return header, pixels[: nx * ny].reshape(ny, nx)


@lru_cache(maxsize=64)
def _layout(shape: tuple[int, int], *geography: Any) -> Layout:
    (lat0,), (lon0,), (true,), lower_left, upper_right = geography
    crs = crs_of(_PROJECTION.format(lat0, lon0, true), "a PGM file")
    (left, bottom), (right, top) = project(crs, *lower_left), project(crs, *upper_right)
    ny, nx = shape
    x = left + (np.arange(nx) + 0.5) * (right - left) / nx
    y = top - (np.arange(ny) + 0.5) * (top - bottom) / ny
    coords = grid(crs, x=x, y=y)
    *space, mapping = coords
    meaning = interpret(NAME, _ATTRS, where="a PGM file")
    meaning.attrs["grid_mapping"] = mapping
    stored = Stored(read, NAME, (1, 2), np.dtype(np.float32), meaning.limits, meaning.name)
    return Layout(stored, meaning, ("time", *space), coords, shape, None, {"standard_name": "time"})
