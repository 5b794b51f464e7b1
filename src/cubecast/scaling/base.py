"""What every scaling is, and what their fits share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast import units
from cubecast.cube import iter_blocks
from cubecast.errors import InputError, ModelMismatchError, UsageError
from cubecast.progress import Progress, follow
from cubecast.sharing import ALL, Share

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Scaling(ABC):
    """A mapping of one variable to model space and back; `fit` returns the fitted one.

    Statistics are float64, encoded and decoded values are float32, missing values stay NaN.
    """

    kind: ClassVar[str]
    units: str = ""
    """Units of the values that were fitted, and that `decode` returns; empty before the fit."""

    @property
    def curvature(self) -> float:
        """c of a model space log(1 + c u) / c, where u is the variable times a constant; 0: not of this form."""
        return 0.0

    @abstractmethod
    def fit(self, parts: Sequence[xr.DataArray], *, progress: Progress | None = None, share: Share = ALL) -> Self:
        """This scaling with its statistics taken from the training ``parts`` of single-variable cubes.

        The parts are read block by block; where processes share them, all get the statistics of all. Raises:
            InputError: other units than the scaling is for, units that differ, or no value to learn from.
        """

    @abstractmethod
    def encode(self, da: xr.DataArray) -> xr.DataArray:
        """Model-space values (units 1) of a piece of a single-variable cube; lazy when the piece is.

        Raises:
            UsageError: the scaling is not fitted.
            ModelMismatchError: the piece has other units (a piece without units is taken as it is).
        """

    @abstractmethod
    def decode(self, da: xr.DataArray) -> xr.DataArray:
        """Values in the cube's units of a piece in model space: the inverse of `encode`."""

    def to_json(self) -> dict[str, Any]:
        """Kind and numbers as plain JSON values; with `arrays`, `scaling_from_json` is the inverse."""
        return {"kind": self.kind, **{k: v for k, v in vars(self).items() if not isinstance(v, np.ndarray)}}

    def arrays(self) -> dict[str, Array]:
        """The statistics that are arrays, by name."""
        return {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray)}

    def check_fitted(self) -> None:
        """Raises `UsageError` before the fit."""
        if not self.units:
            raise UsageError(f"scaling {self.kind!r} is not fitted", remedy="call fit(parts) first")

    def check_units(self, da: xr.DataArray) -> None:
        """Raises `ModelMismatchError` when ``da`` says that it has other units."""
        found = da.attrs.get("units")
        if found is not None and not units.same(str(found), self.units):
            raise ModelMismatchError(
                f"units of {da.name!r}",
                found=repr(found),
                allowed=repr(self.units),
                remedy="convert with cubecast.convert_units",
            )


class Pointwise(Scaling):
    """A scaling that treats every value alike."""

    def encode(self, da: xr.DataArray) -> xr.DataArray:
        """See `Scaling.encode`."""
        self.check_fitted()
        self.check_units(da)
        return _mapped(da, self._forward(floating(da.data)), "1")

    def decode(self, da: xr.DataArray) -> xr.DataArray:
        """See `Scaling.decode`."""
        self.check_fitted()
        return _mapped(da, self._backward(floating(da.data)), self.units)

    @abstractmethod
    def _forward(self, values: Any) -> Any:
        """Model space of a floating array (NumPy or dask)."""

    @abstractmethod
    def _backward(self, values: Any) -> Any:
        """The inverse of `_forward`."""


def _mapped(da: xr.DataArray, values: Any, to: str) -> xr.DataArray:
    return da.copy(data=values.astype(np.float32, copy=False)).assign_attrs(units=to)


def floating(values: Any) -> Any:
    """``values`` as float32 or float64, unchanged when they are one of these."""
    if values.dtype in (np.float32, np.float64):
        return values
    return values.astype(np.float32 if values.dtype == np.float16 else np.float64)


def common_units(parts: Sequence[xr.DataArray], *, need: str | None = None) -> str:
    """The canonical units that all parts share.

    Raises:
        UsageError: no parts.
        InputError: a part without units, units that differ, or other units than ``need``.
    """
    if not parts:
        raise UsageError("nothing to fit the scaling to", found="no cubes", allowed="one or more")
    found = [units.canonical(str(part.attrs.get("units", ""))) for part in parts]
    wanted = need or found[0]
    for part, unit in zip(parts, found, strict=True):
        if not unit or unit != wanted:
            raise InputError(
                f"units of {part.name!r}",
                found=repr(unit) if unit else "none",
                allowed=repr(wanted or "the same for all cubes"),
                remedy="convert with cubecast.convert_units" if unit else "set cube.attrs['units']",
            )
    return wanted


def pieces(
    parts: Sequence[xr.DataArray], progress: Progress | None, share: Share
) -> Iterator[tuple[xr.DataArray, slice, Array]]:
    """(part, frames, floating values) of this process's share of all parts, block by block.

    Raises:
        InputError: an infinite value.
    """
    blocks = ((part, frames, floating(values)) for part in parts for frames, values in iter_blocks(part, share))
    for part, frames, values in follow(blocks, "fitting the scaling", None, progress):
        if np.isinf(values).any():
            raise InputError(
                f"values of {part.name!r}",
                found="infinity",
                allowed="numbers, and NaN where missing",
                remedy="mask or replace them, for example cube.where(np.isfinite(cube))",
            )
        yield part, frames, values
