"""Units of the fields that cubecast forecasts: a small table, not a unit system.

Rain: ``mm h-1`` (the standard unit here), ``m s-1``, ``kg m-2 s-1``, ``mm d-1`` and reflectivity ``dBZ`` by
Marshall & Palmer (1948), Z = 200 R^1.6 with Z in mm6 m-3 and R in mm h-1
(https://doi.org/10.1175/1520-0469(1948)005<0165:TDORWS>2.0.CO;2). Temperature: ``K`` and ``degC``.
Length: ``m`` and ``km``; angle: ``degrees``.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.errors import InputError

NO_ECHO = -32.0
"""dBZ of pixels that were seen and had no echo: the lowest value of 8-bit radar images."""

_ALIASES = {
    "mm h-1": ("mm/h", "mm/hr", "mm hr-1", "mm h^-1", "mm h**-1", "mm hour-1", "kg m-2 h-1", "mm per hour"),
    "m s-1": ("m/s", "m s**-1", "m s^-1"),
    "kg m-2 s-1": ("kg/m2/s", "mm s-1", "mm/s", "kg m**-2 s**-1", "kg m^-2 s^-1"),
    "mm d-1": ("mm/day", "mm day-1", "mm/d"),
    "dBZ": ("dbz", "DBZ"),
    "kg m-2": ("mm", "kg/m2", "kg m**-2", "kg m^-2"),
    "K": ("kelvin", "Kelvin", "degK", "deg_K"),
    "degC": (
        "celsius",
        "Celsius",
        "degrees_celsius",
        "degree_Celsius",
        "degree_C",
        "deg_C",
        "C",
        "°C",
        "degrees_C",
    ),
    "m": ("metre", "meter", "metres", "meters"),
    "km": ("kilometre", "kilometer", "kilometres", "kilometers"),
    "degrees": (
        "degree",
        "degrees_north",
        "degrees_east",
        "degree_north",
        "degree_east",
        "degrees_N",
        "degrees_E",
        "degree_N",
        "degree_E",
        "degreesN",
        "degreesE",
    ),
}
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}

# value in the family's standard unit = factor * value + offset
_LINEAR = {
    "mm h-1": ("mm h-1", 1.0, 0.0),
    "m s-1": ("mm h-1", 3.6e6, 0.0),
    "kg m-2 s-1": ("mm h-1", 3600.0, 0.0),
    "mm d-1": ("mm h-1", 1.0 / 24.0, 0.0),
    "K": ("K", 1.0, 0.0),
    "degC": ("K", 1.0, 273.15),
    "m": ("m", 1.0, 0.0),
    "km": ("m", 1000.0, 0.0),
}
_RAIN_UNITS = ("mm h-1", "mm d-1", "kg m-2 s-1")
_RAIN_NAMES = ("rainfall", "precipitation", "snowfall")
_ZR_A, _ZR_B = 200.0, 1.6


def canonical(units: str) -> str:
    """The one spelling used here for ``units``; an unknown unit comes back as it is, stripped."""
    return _CANONICAL.get(units.strip(), units.strip())


def same(a: str, b: str) -> bool:
    """Whether two spellings name the same unit."""
    return canonical(a) == canonical(b)


def printed(units: str) -> str:
    """Units for people: ``mm h-1`` as ``mm h⁻¹``, ``degC`` as ``°C``, nothing for ``1``."""
    if canonical(units) == "degC":
        return "°C"
    if units == "1":
        return ""
    powers = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    stems = [word.rstrip("-0123456789") for word in units.split()]
    return " ".join(stem + word[len(stem) :].translate(powers) for stem, word in zip(stems, units.split(), strict=True))


def labelled(name: str, units: str) -> str:
    """``name`` with its units for people behind it, if it has any: the label of an axis."""
    return f"{name} ({printed(units)})" if printed(units) else name


def is_rain_rate(units: str, standard_name: str = "") -> bool:
    """Whether values are rates of rain: by units that are used for hardly anything else, or by their CF name."""
    named = standard_name.endswith(("rate", "flux")) and any(part in standard_name for part in _RAIN_NAMES)
    return canonical(units) in _RAIN_UNITS or (named and canonical(units) != "dBZ")


def is_rain(field: xr.DataArray) -> bool:
    """Whether values are reflectivity or rates of rain that `convert_units` makes mm h-1 of."""
    unit = canonical(str(field.attrs.get("units", "")))
    named = is_rain_rate(unit, str(field.attrs.get("standard_name", "")))
    return unit == "dBZ" or (named and _LINEAR.get(unit, ("",))[0] == "mm h-1")


def with_floor(field: xr.DataArray) -> xr.DataArray:
    """Reflectivity without an echo (-inf dBZ, which is an observation) as `NO_ECHO`; other fields as they are."""
    echo = canonical(str(field.attrs.get("units", ""))) == "dBZ"
    return field.clip(min=NO_ECHO, keep_attrs=True) if echo else field


def rain_to_dbz(rate: xr.DataArray) -> xr.DataArray:
    """Reflectivity in dBZ of a rain rate in mm h-1: 10 log10(200 R^1.6); dry (R = 0) gives -inf."""
    power = _ZR_A * rate**_ZR_B
    return 10.0 * xr.apply_ufunc(_log10, power, dask="parallelized", output_dtypes=[power.dtype], keep_attrs=False)


def dbz_to_rain(dbz: xr.DataArray) -> xr.DataArray:
    """Rain rate in mm h-1 of a reflectivity in dBZ: (10^(dBZ/10) / 200)^(1/1.6); -inf gives 0."""
    return (10.0 ** (dbz / 10.0) / _ZR_A) ** (1.0 / _ZR_B)


def convert_units(da: xr.DataArray, to: str) -> xr.DataArray:
    """``da`` in the units ``to``; attributes are kept and ``units`` is set.

    Between rain and reflectivity ``standard_name`` is that of the other, and a ``long_name`` goes.

    Args:
        da: any DataArray with a ``units`` attribute.
        to: one of mm h-1, m s-1, kg m-2 s-1, mm d-1, dBZ (rain); K, degC; m, km; or an alias of these.

    Raises:
        InputError: no ``units`` attribute, or no conversion between the two units is known.
    """
    if "units" not in da.attrs:
        raise InputError(
            f"variable {da.name!r} has no units",
            found="no 'units' attribute",
            remedy="set it, for example cube.attrs['units'] = 'mm h-1'",
        )
    source, target = canonical(str(da.attrs["units"])), canonical(to)
    if source == target:
        return da.assign_attrs(units=target)
    out = da
    if source == "dBZ":
        out, source = dbz_to_rain(out), "mm h-1"
    goal = "mm h-1" if target == "dBZ" else target
    if source not in _LINEAR or goal not in _LINEAR or _LINEAR[source][0] != _LINEAR[goal][0]:
        raise InputError(
            f"cannot convert variable {da.name!r}",
            found=f"units {da.attrs['units']!r}, wanted {to!r}",
            allowed="rain mm h-1, m s-1, kg m-2 s-1, mm d-1, dBZ; temperature K, degC; length m, km",
        )
    if source != goal:
        _, factor, offset = _LINEAR[source]
        _, factor_to, offset_to = _LINEAR[goal]
        out = (out * factor + (offset - offset_to)) / factor_to
    if target == "dBZ":
        out = rain_to_dbz(out)
    attrs = {**da.attrs, "units": target}
    if (canonical(str(da.attrs["units"])) == "dBZ") != (target == "dBZ"):  # another quantity
        attrs |= {"standard_name": "equivalent_reflectivity_factor" if target == "dBZ" else "rainfall_rate"}
        attrs.pop("long_name", None)
    return out.assign_attrs(attrs)


def _log10(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    with np.errstate(divide="ignore"):
        return np.log10(values)
