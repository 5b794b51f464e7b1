"""Statistics of rain in files, and of generated rain beside them: one column each.

    python scripts/rain_statistics.py event1.nc event2.nc --generated 30 -o statistics.csv

Generated cubes have the seeds 0, 1, ... and 36 frames; their median and range over seeds are shown. Pixels smaller than
--finest km are averaged in blocks before, so that events are comparable.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import xarray as xr

import cubecast
from cubecast.atomic import atomic_path
from cubecast.cube import space_dims
from cubecast.rain_statistics import rain_statistics, summary
from cubecast.scores.spatial import cell_km
from one_line import one_line_errors


def coarsened(cube: xr.DataArray, finest: float) -> xr.DataArray:
    """Means of blocks of pixels that are ``finest`` km wide or nearly so; pixels as large are left alone."""
    block = int(finest / (cell_km(cube) or finest) + 0.01)
    if block < 2:
        return cube
    return cube.coarsen(dict.fromkeys(space_dims(cube), block), boundary="trim").mean(keep_attrs=True)


def generated(seeds: int, *, grid: float, step: float) -> pd.DataFrame:
    """Rows of statistics, columns median, lowest and highest of seeds."""
    rows = []
    for seed in range(seeds):
        cube = cubecast.generate_rain(frames=36, size=(256, 256), grid_km=grid, step_minutes=step, seed=seed)
        rows.append(summary(rain_statistics(cube, cases=2)))
    table = pd.DataFrame(rows)
    return pd.DataFrame({"median": table.median(), "lowest": table.min(), "highest": table.max()})


@one_line_errors("rain_statistics")
def main(
    files: Annotated[list[Path] | None, typer.Argument(help="Files of rain, each a column.")] = None,
    generate: Annotated[int, typer.Option("--generated", min=0, help="Seeds of generated rain.")] = 0,
    grid: Annotated[float, typer.Option(help="Pixels of generated rain in km.")] = 1.0,
    step: Annotated[float, typer.Option(help="Step of generated rain in minutes.")] = 5.0,
    finest: Annotated[float, typer.Option(help="Average smaller pixels to this many km.")] = 1.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the table as CSV.")] = None,
) -> None:
    """Print the table."""
    stems = [file.stem for file in files or []]
    columns: dict[str, pd.Series] = {}
    for file in files or []:
        cube = coarsened(cubecast.open_cube(file).load(), finest)
        columns[file.stem if stems.count(file.stem) == 1 else str(file)] = pd.Series(summary(rain_statistics(cube)))
    table = pd.DataFrame(columns)
    if generate:
        table = pd.concat([table, generated(generate, grid=grid, step=step)], axis=1)
    if output:
        with atomic_path(output) as temporary:
            table.to_csv(temporary, index_label="statistic")
    typer.echo(table.to_string(float_format=lambda v: f"{v:.3g}"))


if __name__ == "__main__":
    typer.run(main)
