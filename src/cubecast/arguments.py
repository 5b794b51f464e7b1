"""What the command line takes: options that commands share, and from their text to cubes, times and numbers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, overload

import typer
import yaml
from rich.console import Console
from rich.progress import track

from cubecast.cube import CHANNEL, channel_units, cube_step
from cubecast.errors import ModelMismatchError, OutputError, UsageError
from cubecast.shipped import CELLS_KM, SHIPPED
from cubecast.units import convert_units

if TYPE_CHECKING:
    import xarray as xr

    from cubecast.nowcaster import Nowcaster

log = logging.getLogger(__name__)
err = Console(stderr=True, highlight=False)

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES",
        help="netCDF, radar composites (ODIM or KNMI HDF5, FMI PGM, GRIB2), a quoted pattern, a Zarr store; also URLs.",
    ),
]
Variable = Annotated[
    list[str] | None,
    typer.Option("--variable", metavar="NAME", help="Variable to read; repeat for several channels. [the only one]"),
]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Use data from this time on, for example 2017-01.")]
End = Annotated[
    str | None, typer.Option(metavar="TIME", help="Use data up to this time, included, for example 2016-12.")
]
Model = Annotated[
    str,
    typer.Option(
        metavar="FOLDER|NAME", help="Folder that 'cubecast train' wrote, or the name of a model shipped here."
    ),
]
Members = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Members of an ensemble, of a model that has them. [one forecast: the mean]"),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the members.")]
StaticFile = Annotated[
    str | None,
    typer.Option("--static", metavar="FILE", help="netCDF file of static fields on the same grid (height, land mask)."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="fp32, bf16, or auto: bf16 where the hardware multiplies it. [as configured: auto; sst and series: fp32]",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory to use, for example 2GB: grids that need more go in tiles. [4GB]"),
]
Matched = Annotated[
    bool,
    typer.Option("--matched", help="Give forecasts the distribution of the last observed frame: against blur."),
]
Baselines = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Comma-separated: persistence, extrapolation, climatology, ..., and sprog, steps, linda, which pysteps "
        "makes; or 'auto': those that fit the data and cost nothing.",
    ),
]
Thresholds = Annotated[
    str | None,
    typer.Option(metavar="NUMBERS", help="For POD, FAR, CSI and FSS, comma-separated. [rain: 0.1,1,5 mm/h; else none]"),
]
Windows = Annotated[
    str | None,
    typer.Option(metavar="SCALES", help="For FSS: km or odd numbers of cells, e.g. 1km,10km,50km. [10km]"),
]
Bootstrap = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="95 % intervals from N resamples of the cases; 1000 is enough. [0: no intervals]"
    ),
]
Region = Annotated[
    list[str] | None, typer.Option(metavar="DIM=FROM:TO", help="Keep this range, e.g. lat=-60:60; repeat.")
]


def bar(items: Iterable[Any], description: str, total: int | None) -> Iterable[Any]:
    """A progress bar on stderr; silent where stderr is not a terminal."""
    return track(items, description, total=total, console=err, disable=not err.is_terminal)


@overload
def sole(given: list[str]) -> str | list[str]: ...
@overload
def sole(given: None) -> None: ...
def sole(given: list[str] | None) -> str | list[str] | None:
    """The only one of what an option or argument was given; several, or None, as they are."""
    return given[0] if given and len(given) == 1 else given


def open_all(files: list[str], variable: list[str] | None, start: str | None, end: str | None) -> list[xr.DataArray]:
    """The cubes of files, each with one grid."""
    from cubecast.sources import open_cubes

    return open_cubes(sole(files), variable=sole(variable), start=start, end=end, progress=bar)


def open_one(files: list[str], variable: list[str] | None) -> xr.DataArray:
    """The only cube of files."""
    from cubecast.sources import open_cube

    return open_cube(sole(files), variable=sole(variable), progress=bar)


def load_model(model: str) -> Nowcaster:
    """A model from its folder, or a shipped one by its name."""
    from cubecast.nowcaster import Nowcaster

    return Nowcaster.load(model)


def fit_shipped(cube: xr.DataArray, model: Nowcaster, name: str) -> xr.DataArray:
    """``cube`` as the model of this name takes it: for a shipped one rain in mm h-1, whatever its units; else as it is.

    Raises:
        ModelMismatchError: it is not what a shipped model is for.
    """
    if name not in SHIPPED:
        return cube
    from cubecast.extrapolation import is_rain_field
    from cubecast.forecast import check_step
    from cubecast.scores.spatial import cell_km

    step, km = cube_step(cube), cell_km(cube)
    rain = convert_units(cube, "mm h-1") if CHANNEL not in cube.dims and is_rain_field(cube) else cube
    try:
        model.check(rain)
        check_step(rain, step, model.step)
    except (ModelMismatchError, UsageError):
        found = ", ".join(f"{variable} in {unit}" for variable, unit in channel_units(cube).items())
        raise ModelMismatchError(
            f"the model {name} does not fit",
            found=f"{found}, dims {cube.dims}, step {step}",
            allowed=SHIPPED[name],
            remedy="train a model on such data: cubecast train FILES -o FOLDER",
        ) from None
    if km is not None and not CELLS_KM[0] <= km <= CELLS_KM[1]:
        log.warning("cells of %.3g km: the model %s is for %s", km, name, SHIPPED[name])
    return rain


def open_static_fields(path: str | None, cubes: list[xr.DataArray], one: bool = False) -> Any:
    """The static fields of a file, for each cube (or the ``one``); None without a file."""
    if path is None:
        return None
    from cubecast.sources import open_static

    field = open_static(path)
    return field if one else [field for _ in cubes]


def read_settings(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, the values read as YAML."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageError("--set", found=repr(pair), allowed="NAME=VALUE")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"--set {name}", found=repr(text), allowed="a number, a word or a [list]") from None
    return values


def read_numbers(option: str, text: str) -> list[float]:
    """Numbers with commas between, given to an option."""
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise UsageError(option, found=repr(text), allowed="comma-separated numbers, for example 0.1,1,5") from None


def read_range(text: str) -> tuple[str, tuple[float, float]]:
    """The dim and range of DIM=FROM:TO."""
    match = re.fullmatch(r"(\w+)=([^:]+):([^:]+)", text)
    try:
        if match is None:
            raise ValueError
        return match[1], (float(match[2]), float(match[3]))
    except ValueError:
        raise UsageError("--region", found=repr(text), allowed="DIM=FROM:TO, for example lat=-60:60") from None


def read_ranges(texts: list[str]) -> dict[str, tuple[float, float]]:
    """Ranges by their dims, each of which has one."""
    ranges = [read_range(text) for text in texts]
    if len({dim for dim, _ in ranges}) < len(ranges):
        raise UsageError("--region", found=", ".join(texts), allowed="one for each dim")
    return dict(ranges)


def check_folder(folder: Path) -> None:
    """Say before the work, not after it, that its results have no place."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write {folder}", found="a file", allowed="a folder, or a new name")


def check_new_folder(folder: Path, resume: bool) -> None:
    """Training must not mix with what another run left."""
    check_folder(folder)
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise OutputError(
            f"folder {folder} is not empty",
            found=", ".join(sorted(p.name for p in folder.iterdir())[:3]),
            remedy="choose another with -o, or pass --resume to go on",
        )
