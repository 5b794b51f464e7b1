"""``cubecast products``: from the file of an ensemble to one of its mean, probabilities and quantiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cubecast.arguments import read_numbers
from cubecast.errors import UsageError


def products_command(
    ensemble: Annotated[
        Path, typer.Argument(metavar="ENSEMBLE", help="A forecast that 'cubecast forecast --members N' wrote.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write: .nc or .zarr.")],
    mean: Annotated[bool, typer.Option("--mean", help="The mean of the members.")] = False,
    probability: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", help="Probabilities of these thresholds or more, comma-separated, in the file's units."
        ),
    ] = None,
    quantile: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Quantiles from 0 to 1, comma-separated: 0.5 is the median.")
    ] = None,
) -> None:
    """Make the mean, probabilities and quantiles of an ensemble: a forecast file that can be drawn as any other."""
    from cubecast.ensemble_products import ensemble_mean, ensemble_probabilities, ensemble_quantiles
    from cubecast.write import read_forecast, write_forecast

    if not mean and probability is None and quantile is None:
        raise UsageError("products", found="none", allowed="--mean, --probability 0.1,1,5 and --quantile 0.1,0.5,0.9")
    forecast = read_forecast(ensemble)
    parts = [ensemble_mean(forecast)] if mean else []
    if probability is not None:
        parts.append(ensemble_probabilities(forecast, read_numbers("--probability", probability)))
    if quantile is not None:
        parts.append(ensemble_quantiles(forecast, read_numbers("--quantile", quantile)))
    made = parts[0].assign({name: field for part in parts for name, field in part.data_vars.items()})
    write_forecast(made, output)
    typer.echo(str(output))
