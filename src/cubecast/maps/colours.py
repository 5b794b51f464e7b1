"""Colours of a field: rain by accepted bounds, probabilities in tenths, others by cmocean, missing data by a hatch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize, to_rgba

from cubecast import units

RAIN_BOUNDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""mm h-1; below the first it is dry, above the last there is one more colour."""
RAIN_COLOURS = (
    "#d6ebf7", "#a8d1ec", "#6fb0de", "#3584c4", "#14508f",  # light to moderate: blues that darken
    "#ffe97f", "#fdb53c", "#ee6c25", "#bd1e3d", "#5a0b50",  # heavy: yellow to dark purple
)  # fmt: skip
"""Told apart with normal, red-blind and green-blind eyes (a test computes it)."""
DRY = "#ffffff"
PROBABILITY_BOUNDS = tuple(n / 10 for n in range(11))
MISSING = "#dcdcdc"
HATCH = "#bcbcbc"
_RAIN_DIFFERENCES = (-20.0, -10.0, -5.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class Style:
    """How values become colours: ``norm`` and ``cmap``, the text of the colour bar, its ends and its ticks."""

    cmap: Colormap
    norm: Normalize
    label: str
    extend: str
    missing: bool
    """Whether some of the values are missing, so that the legend must say how that looks."""
    ticks: tuple[float, ...] | None = None


def shown(field: xr.DataArray) -> xr.DataArray:
    """``field`` in the units that people read: rain rates in mm h-1, temperatures in degC."""
    unit, name = str(field.attrs.get("units", "")), str(field.attrs.get("standard_name", ""))
    if units.is_rain_rate(unit, name) and units.canonical(unit) != "mm h-1":
        return units.convert_units(field, "mm h-1")
    if units.same(unit, "K") and name.endswith("temperature"):
        return units.convert_units(field, "degC")
    return units.with_floor(field)


def title_of(field: xr.DataArray) -> str:
    """What the field is, for people: its standard name, long name or name."""
    text = str(field.attrs.get("standard_name") or field.attrs.get("long_name") or field.name or "value")
    unit = str(field.attrs.get("threshold_units", ""))
    if units.printed(unit):  # of a probability: its threshold
        text = text.replace(f" {unit} or more", f" {units.printed(unit)} or more")
    text = text.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def field_style(field: xr.DataArray, values: Sequence[npt.NDArray[Any]]) -> Style:
    """The colours of a field from `shown`.

    Args:
        field: for its name and units.
        values: what will be drawn, for the limits: all panels of a figure share one style.
    """
    unit, missing = str(field.attrs.get("units", "")), not all(np.isfinite(v).all() for v in values)
    label = units.labelled(title_of(field), unit)
    if units.is_rain_rate(unit, str(field.attrs.get("standard_name", ""))):
        cmap = ListedColormap(RAIN_COLOURS[:-1]).with_extremes(under=DRY, over=RAIN_COLOURS[-1])
        # packed files hold 0.1 as 0.09999999: a bound belongs to the class above it with that much slack
        norm = BoundaryNorm([b * (1 - 1e-5) for b in RAIN_BOUNDS], len(RAIN_BOUNDS) - 1)
        return Style(cmap, norm, label, "max", missing, RAIN_BOUNDS)
    words = f"{field.name} {field.attrs.get('standard_name', '')} {field.attrs.get('long_name', '')}".lower()
    if _is_probability(field):
        return _probability_style(missing)
    low, high = _limits(values)
    if "anomaly" in words or "difference" in words:
        size = max(abs(low), abs(high))
        return Style(_cmocean("balance"), Normalize(-size, size), label, "both", missing)
    warm = "temperature" in words or units.canonical(unit) in ("degC", "K")
    return Style(_cmocean("thermal") if warm else colormaps["viridis"], Normalize(low, high), label, "both", missing)


def _is_probability(field: xr.DataArray) -> bool:
    words = f"{field.attrs.get('standard_name', '')} {field.attrs.get('long_name', '')}"
    return str(field.attrs.get("units")) == "1" and "probability" in words


def _probability_style(missing: bool) -> Style:
    """Tenths from 0 to 1, light to dark; white below the first tenth."""
    classes = len(PROBABILITY_BOUNDS) - 1
    colours = _cmocean("dense")(np.linspace(0.0, 0.95, classes))
    colours[0] = to_rgba(DRY)
    # shares of members are rounded to float32: a bound belongs to the class above it, and 1 to the last
    norm = BoundaryNorm([*(b * (1 - 1e-5) for b in PROBABILITY_BOUNDS[:-1]), 1 + 1e-5], classes)
    return Style(ListedColormap(colours), norm, "Probability", "neither", missing, PROBABILITY_BOUNDS)


def difference_style(field: xr.DataArray, values: Sequence[npt.NDArray[Any]]) -> Style:
    """The colours of forecast minus observation of a field from `shown`: blue is too little, red too much."""
    unit, missing = str(field.attrs.get("units", "")), not all(np.isfinite(v).all() for v in values)
    label = units.labelled("Forecast − observed", unit)
    if units.is_rain_rate(unit, str(field.attrs.get("standard_name", ""))):
        count = len(_RAIN_DIFFERENCES) - 1
        half = count // 2 + 1  # the middle of the scale is left out: its greys look like missing data
        at = np.concatenate([np.linspace(0.06, 0.38, half), [0.5], np.linspace(0.62, 0.94, half)])
        colours = _cmocean("balance")(at)
        colours[half] = (1.0, 1.0, 1.0, 1.0)
        cmap = ListedColormap(colours[1:-1]).with_extremes(under=colours[0], over=colours[-1])
        return Style(cmap, BoundaryNorm(_RAIN_DIFFERENCES, count), label, "both", missing, _RAIN_DIFFERENCES)
    if _is_probability(field):
        return Style(_cmocean("balance"), Normalize(-1, 1), label, "neither", missing)
    low, high = _limits(values)
    size = max(abs(low), abs(high))
    return Style(_cmocean("balance"), Normalize(-size, size), label, "both", missing)


def _limits(values: Sequence[npt.NDArray[Any]]) -> tuple[float, float]:
    """Limits that hold 98 % of the finite values, rounded to two digits of their range; 0 and 1 without any."""
    finite = np.concatenate([v[np.isfinite(v)].ravel() for v in values] or [np.empty(0)])
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, [1, 99])
    digits = 10.0 ** np.floor(np.log10(max(high - low, 1e-6 * max(abs(low), abs(high), 1e-6)))) / 10
    low, high = np.floor(low / digits) * digits, np.ceil(high / digits) * digits
    return float(low), float(high if high > low else low + digits)


@cache
def _cmocean(name: str) -> ListedColormap:
    """A colour table of cmocean (Thyng et al. 2016, https://doi.org/10.5670/oceanog.2016.66), read from its file.

    Importing cmocean 4.0 registers 44 colour maps with pyplot through a call that matplotlib 3.13 removes.
    """
    spec = find_spec("cmocean")
    assert spec is not None  # a dependency of the package
    assert spec.origin is not None
    return ListedColormap(np.loadtxt(Path(spec.origin).parent / "rgb" / f"{name}-rgb.txt"), name=name)
