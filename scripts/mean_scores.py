"""One table of several verifications: the mean over leads of each, and the mean of these.

    cubecast verify event1.nc --model without1 -o event1
    cubecast verify event2.nc --model without2 -o event2
    python scripts/mean_scores.py event1 event2

Systems, leads and scores are those that all have. A score that is not known at a lead, for want of events, has no mean.
"""

from functools import reduce
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import markdown_table
from ablations import COLUMNS
from cubecast.errors import InputError, UsageError
from one_line import one_line_errors

SCORES = {**COLUMNS, "crps_fair": "fair CRPS"}
"""Columns of `cubecast.verify`, and what the table calls them."""


def read_scores(folder: Path) -> pd.DataFrame:
    """The scores that `cubecast verify` wrote, by system and lead."""
    path = folder / "scores.csv"
    try:
        return pd.read_csv(path).set_index(["system", "lead_time", "lead_units"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(str(path), found=error, allowed="what `cubecast verify -o FOLDER` writes") from None


def mean_scores(by_event: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Means over leads by verification and system, and then over verifications.

    Raises:
        InputError: nothing that all have, or several variables, which are not one score.
    """
    several = [name for name, table in by_event.items() if not table.index.is_unique]
    if several:
        raise InputError(f"scores of {several[0]}", found="several variables", allowed="verifications of one variable")
    rows = reduce(lambda one, other: one.intersection(other, sort=False), (t.index for t in by_event.values()))
    scores = [score for score in SCORES if all(score in table for table in by_event.values())]
    if not len(rows) or not scores:
        raise InputError("scores", found="no system, lead and score that all have", allowed="verifications alike")
    means = {name: _mean(table.loc[rows, scores]) for name, table in by_event.items()}
    return pd.concat({**means, "mean": _mean(pd.concat(means.values()))})


def _mean(table: pd.DataFrame) -> pd.DataFrame:
    """Of each system; NaN where one of its rows is NaN."""
    return table.groupby("system", sort=False).mean(skipna=False)


@one_line_errors("mean_scores")
def main(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Of `cubecast verify`, with scores.csv.")],
) -> None:
    """Print the table."""
    names = [folder.resolve().name for folder in folders]
    if len({*names, "mean"}) <= len(names):
        raise UsageError("folders", found=", ".join(names), allowed="different names, and none is 'mean'")
    found = mean_scores({name: read_scores(folder) for name, folder in zip(names, folders, strict=True)})
    typer.echo(markdown_table.head(["event", "system", *(SCORES[score] for score in map(str, found))]))
    for name, means in zip(found.index, found.to_numpy().tolist(), strict=True):
        typer.echo(markdown_table.row([*name, *means]))


if __name__ == "__main__":
    typer.run(main)
