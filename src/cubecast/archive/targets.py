"""Where the forecasts of an archive go: a folder of netCDF files, or one Zarr store that is written by region."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, final

import netCDF4
import numpy as np
import xarray as xr

from cubecast.atomic import atomic_path, make_folder, remove_stale
from cubecast.channels import Array
from cubecast.errors import InputError, OutputError, UsageError
from cubecast.product import file_stem, forecast_dim, names
from cubecast.sources.blocks import LOCK, READ_ERRORS
from cubecast.write import FINGERPRINT, create_store, read_forecast, write_forecast, write_region


class Target(ABC):
    """Abstract: forecasts by reference time, each with the fingerprint that tells what it was made of; picklable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def report(self) -> Path:
        """Where the report of a run goes."""

    @abstractmethod
    def prepare(self, blank: xr.Dataset) -> None:
        """Make the folder or store for all forecasts of ``blank``, unless it is there.

        Raises:
            OutputError: it cannot be made, or is one of other forecasts.
        """

    def clean(self) -> None:
        """Remove what killed writers of this machine have left."""
        remove_stale(self.path)

    @abstractmethod
    def name(self, reference: Any) -> str:
        """What the forecast after a reference time is called."""

    @abstractmethod
    def has(self, reference: Any, fingerprint: int) -> bool:
        """Whether that forecast is there, complete and of that fingerprint."""

    @abstractmethod
    def write(self, forecast: xr.Dataset, reference: Any, fingerprint: int) -> None:
        """Write one forecast, whole before its fingerprint is there.

        Raises:
            OutputError: it cannot be written.
        """


def choose_target(path: Path, *, maps: bool) -> Target:
    """A Zarr store where the name ends in .zarr, else a folder.

    Raises:
        UsageError: maps beside a store, or the name of a file.
    """
    if path.suffix == ".zarr":
        if maps:
            raise UsageError("--maps", found="a Zarr store", allowed="a folder of netCDF files as output")
        return Store(path)
    if path.suffix == ".nc":
        raise UsageError("output of a batch", found=str(path), allowed="a folder, or a store named .zarr")
    return Folder(path, maps=maps)


@final
class Folder(Target):
    """One CF netCDF file a reference time; maps, if any, in a folder for each under ``maps``."""

    def __init__(self, path: Path, *, maps: bool = False) -> None:
        super().__init__(path)
        self.maps = maps

    @property
    def report(self) -> Path:
        """See `Target`."""
        return self.path / "report.json"

    def prepare(self, blank: xr.Dataset) -> None:
        """See `Target`."""
        make_folder(self.path / "maps" if self.maps else self.path)

    def clean(self) -> None:
        """See `Target`."""
        super().clean()
        remove_stale(self.path / "maps")

    def name(self, reference: Any) -> str:
        """See `Target`."""
        return f"{file_stem(reference)}.nc"

    def has(self, reference: Any, fingerprint: int) -> bool:
        """See `Target`; a file that HDF5 finds cut short is not complete."""
        path = self.path / self.name(reference)
        if not path.is_file() or (self.maps and not self._maps(path).is_dir()):
            return False
        try:
            with LOCK, netCDF4.Dataset(path) as file:
                return int(getattr(file, FINGERPRINT, 0)) == fingerprint
        except READ_ERRORS:
            return False

    def write(self, forecast: xr.Dataset, reference: Any, fingerprint: int) -> None:
        """See `Target`; maps are drawn of what was written."""
        path = self.path / self.name(reference)
        write_forecast(forecast.assign_attrs({FINGERPRINT: fingerprint}), path)
        if self.maps:
            from cubecast.maps import draw_maps

            with atomic_path(self._maps(path), replace_folder=True) as temporary:
                draw_maps(read_forecast(path), temporary)

    def _maps(self, path: Path) -> Path:
        return self.path / "maps" / path.stem


@final
class Store(Target):
    """One Zarr store with all reference times; each forecast is a region of its own chunks."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._references: Array | None = None

    @property
    def report(self) -> Path:
        """See `Target`."""
        return self.path.with_suffix(".report.json")

    def prepare(self, blank: xr.Dataset) -> None:
        """See `Target`; a store that is there must have all reference times, and be of the same model and grid."""
        if not self.path.exists():
            make_folder(self.path.parent)
            create_store(blank, self.path)
        try:
            there = read_forecast(self.path)
        except InputError as error:
            raise OutputError(f"cannot write to {self.path}", found=str(error), remedy="choose another name") from None
        reference = names(forecast_dim(blank))[0]
        self._references = there[reference].values
        key = "model_weights_sha256"
        same = there.attrs.get(key) == blank.attrs.get(key)
        if not (same and _frame(there, reference).equals(_frame(blank, reference))):
            found = "forecasts of another model, grid or horizon"
        elif not np.isin(blank[reference].values, self._references).all():
            found = "a store of other reference times"
        else:
            return
        raise OutputError(f"cannot write to {self.path}", found=found, remedy="choose another name")

    def name(self, reference: Any) -> str:
        """See `Target`."""
        return f"{self.path.name} {file_stem(reference)}"

    def has(self, reference: Any, fingerprint: int) -> bool:
        """See `Target`."""
        import zarr

        found: Any = zarr.open_array(self.path, path=FINGERPRINT, mode="r")[self._place(reference)]
        return bool(found == fingerprint)

    def write(self, forecast: xr.Dataset, reference: Any, fingerprint: int) -> None:
        """See `Target`."""
        write_region(forecast, self.path, self._place(reference), fingerprint)

    def _place(self, reference: Any) -> int:
        assert self._references is not None, "prepare was not called"
        return int(np.searchsorted(self._references, reference))


def _frame(forecast: xr.Dataset, reference: str) -> xr.Dataset:
    """Variables and coordinates without a single forecast."""
    return forecast.reset_coords(drop=True).isel({reference: slice(0, 0)})
