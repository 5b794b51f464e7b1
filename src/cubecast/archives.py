"""Public archives of radar rain and sea-surface temperature: whose they are, on what terms, and their URLs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cubecast.errors import UsageError
from cubecast.steps import parse_time


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One product of a public archive."""

    title: str
    owner: str
    """Name it in every figure and list it with every model trained on it."""
    licence: str
    format: str
    url: str | None
    """One file's address, with the codes of strftime for its time (UTC); None: there is no plain address."""
    every: str | None = None
    """NumPy unit of the time between two files, such as ``15m`` or ``M``; None: one file holds everything."""
    first: str | None = None
    """Time of the first file, where it is known."""
    last: str | None = None
    """Time of the last file of a product that has ended."""
    use: str
    """What `cubecast.open_cube` makes of it."""


_NOAA_CDR = "no restrictions on use (NOAA Climate Data Record); cite doi:10.7289/V5SQ8XB5"
_OPERA = "https://s3.waw3-1.cloudferro.com/openradar-archive/%Y/%m/%d/OPERA/COMP/OPERA@%Y%m%dT%H%M@0@"

ARCHIVES: dict[str, Archive] = {
    "ersst_v5": Archive(
        title="ERSST v5, monthly mean sea-surface temperature since 1854, 2 degree, all months in one file",
        owner="NOAA NCEI, served by NOAA PSL",
        licence="no constraints on data access or use; cite doi:10.7289/V5T72FNM",
        format="netCDF",
        url="https://downloads.psl.noaa.gov/Datasets/noaa.ersst.v5/sst.mnmean.nc",
        use="a monthly cube of sea-surface temperature in degC, land missing",
    ),
    "ersst_v5_months": Archive(
        title="ERSST v5, the same from its producer: one file a month, with anomalies",
        owner="NOAA NCEI",
        licence="no constraints on data access or use; cite doi:10.7289/V5T72FNM",
        format="netCDF",
        url="https://www.ncei.noaa.gov/pub/data/cmb/ersst/v5/netcdf/ersst.v5.%Y%m.nc",
        every="M",
        first="1854-01",
        use="a monthly cube; choose variable='sst' or 'ssta'",
    ),
    "oisst_v2_1": Archive(
        title="OISST v2.1 (AVHRR), daily sea-surface temperature since September 1981, 0.25 degree (1.6 MB a day)",
        owner="NOAA NCEI",
        licence=_NOAA_CDR,
        format="netCDF",
        url="https://www.ncei.noaa.gov/data/sea-surface-temperature-optimum-interpolation/v2.1/access/avhrr/"
        "%Y%m/oisst-avhrr-v02r01.%Y%m%d.nc",
        every="D",
        first="1981-09-01",
        use="a daily cube; choose variable='sst' (also anom, err, ice)",
    ),
    "mrms_rain_rate": Archive(
        title="MRMS PrecipRate, rain over the conterminous United States, 0.01 degree, every 2 minutes",
        owner="NOAA",
        licence="open data, no restrictions on use",
        format="GRIB2, gzipped",
        url="https://noaa-mrms-pds.s3.amazonaws.com/CONUS/PrecipRate_00.00/%Y%m%d/"
        "MRMS_PrecipRate_00.00_%Y%m%d-%H%M%S.grib2.gz",
        every="2m",
        use="unpack with gunzip; then a cube of rain rate in mm h-1, with the extra cubecast[radar]",
    ),
    "opera_rain_rate": Archive(
        title="OPERA composite of Europe, rain rate, 2 km, every 15 minutes since July 2024",
        owner="EUMETNET OPERA",
        licence="CC BY 4.0",
        format="ODIM HDF5",
        url=_OPERA + "RATE.h5",
        every="15m",
        first="2024-07-01T00:00",
        use="a cube of rain rate in mm h-1, outside radar coverage missing",
    ),
    "opera_rain_rate_odyssey": Archive(
        title="OPERA composite of Europe, rain rate, 2 km, every 15 minutes from 2012 to June 2024",
        owner="EUMETNET OPERA",
        licence="CC BY 4.0",
        format="ODIM HDF5",
        url=_OPERA + "QIND_RATE.h5",
        every="15m",
        first="2012-01-01T00:00",
        last="2024-06-30T23:45",
        use="a cube of rain rate in mm h-1, outside radar coverage missing; expect clutter",
    ),
    "fmi_reflectivity": Archive(
        title="Finnish composite of radar reflectivity, 250 m, every 5 minutes",
        owner="Finnish Meteorological Institute",
        licence="CC BY 4.0",
        format="GeoTIFF",
        url="https://fmi-opendata-radar-geotiff.s3.eu-west-1.amazonaws.com/%Y/%m/%d/FIN-DBZ-3067-250M/"
        "%Y%m%d%H%M_FIN-DBZ-3067-250M.tif",
        every="5m",
        use="not read: convert to netCDF first, dBZ = 0.5 * pixel - 32",
    ),
    "knmi_rain_rtcor": Archive(
        title="Dutch 5-minute rain accumulations (nl_rdr_data_rtcor_5m), 1 km",
        owner="KNMI",
        licence="free of charge under the open-data policy of the Dutch government",
        format="KNMI HDF5",
        url=None,
        use="a cube of rain rate in mm h-1. Files come through an API that wants a key of your own: "
        "https://developer.dataplatform.knmi.nl/open-data-api",
    ),
}
"""Facts as their owners state them; addresses change, and a 404 from `cubecast.download` says that one has."""


def archive_urls(name: str, start: str | None = None, end: str | None = None) -> list[str]:
    """The addresses of all files of an archive from ``start`` to ``end``, both included.

    Args:
        name: a key of `ARCHIVES`.
        start: UTC time such as ``2024-07-01T12:00`` (the file that it falls into is the first); not needed by an
            archive that is one file.
        end: UTC time of the last file.

    Raises:
        UsageError: an unknown archive, one without plain addresses, or times that it does not have.
    """
    if name not in ARCHIVES:
        raise UsageError("archive", found=repr(name), allowed=", ".join(ARCHIVES))
    archive = ARCHIVES[name]
    if archive.url is None:
        raise UsageError(f"archive {name!r} has no plain addresses", remedy=archive.use)
    if archive.every is None:
        return [archive.url]
    if start is None or end is None:
        raise UsageError(f"archive {name!r} needs a start and an end", allowed="UTC times such as 2024-07-01T12:00")
    unit = f"datetime64[{archive.every}]"
    begin, stop = _time(start), _time(end)
    _check_period(name, archive, begin, stop)
    times = np.arange(begin.astype(unit), stop.astype(unit) + 1).astype("datetime64[s]")
    return [time.strftime(archive.url) for time in times.tolist()]


def _time(text: str) -> np.datetime64:
    try:
        return parse_time(text).astype("datetime64[s]")
    except ValueError:
        raise UsageError("time", found=repr(text), allowed="UTC times such as 2024-07-01T12:00") from None


def _check_period(name: str, archive: Archive, begin: np.datetime64, stop: np.datetime64) -> None:
    if stop < begin:
        raise UsageError("period", found=f"{begin} to {stop}", allowed="an end that is not before the start")
    first = begin if archive.first is None else np.datetime64(archive.first, "s")
    last = stop if archive.last is None else np.datetime64(archive.last, "s")
    if begin < first or stop > last:
        allowed = f"from {archive.first or 'any time'} to {archive.last or 'now'}"
        raise UsageError(f"period of archive {name!r}", found=f"{begin} to {stop}", allowed=allowed)
