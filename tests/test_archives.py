"""The addresses of public archives: as their owners write them, one for each file of a period."""

from urllib.parse import urlparse

import pytest

from cubecast.archives import ARCHIVES, archive_urls
from cubecast.errors import UsageError

KNOWN = {
    # Addresses that the owners' or other users' own documentation gives as examples.
    "https://www.ncei.noaa.gov/pub/data/cmb/ersst/v5/netcdf/ersst.v5.185401.nc": ("ersst_v5_months", "1854-01"),
    "https://www.ncei.noaa.gov/data/sea-surface-temperature-optimum-interpolation/v2.1/access/avhrr/202403/"
    "oisst-avhrr-v02r01.20240301.nc": ("oisst_v2_1", "2024-03-01"),
    "https://noaa-mrms-pds.s3.amazonaws.com/CONUS/PrecipRate_00.00/20260822/"
    "MRMS_PrecipRate_00.00_20260822-032400.grib2.gz": ("mrms_rain_rate", "2026-08-22T03:24"),
    "https://s3.waw3-1.cloudferro.com/openradar-archive/2025/07/15/OPERA/COMP/OPERA@20250715T0615@0@RATE.h5": (
        "opera_rain_rate",
        "2025-07-15T06:15Z",
    ),
}


@pytest.mark.parametrize(("url", "what"), KNOWN.items())
def test_the_address_of_one_file(url: str, what: tuple[str, str]) -> None:
    name, time = what
    assert archive_urls(name, time, time) == [url]


def test_a_period_holds_every_file_once_with_both_ends_and_across_new_year() -> None:
    urls = archive_urls("opera_rain_rate", "2024-12-31T23:20", "2025-01-01T00:35")
    assert [u.split("@")[1][-4:] for u in urls] == ["2315", "2330", "2345", "0000", "0015", "0030"]
    months = archive_urls("ersst_v5_months", "2019-11-20", "2020-02-01")
    assert [m[-9:-3] for m in months] == ["201911", "201912", "202001", "202002"]
    assert len(archive_urls("oisst_v2_1", "2024-01-01", "2024-12-31")) == 366


def test_an_archive_of_one_file_needs_no_period() -> None:
    assert archive_urls("ersst_v5") == ["https://downloads.psl.noaa.gov/Datasets/noaa.ersst.v5/sst.mnmean.nc"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_archive_says_whose_it_is_and_gives_plain_addresses_or_the_way_to_them(name: str) -> None:
    archive = ARCHIVES[name]
    assert archive.owner
    assert archive.licence
    assert archive.use
    if archive.url is None:
        with pytest.raises(UsageError, match="a key of your own: https://"):
            archive_urls(name)
        return
    time = archive.first or "2023-05-01T00:00"
    for url in archive_urls(name, time, time):
        assert urlparse(url).scheme == "https"
        assert "%" not in url


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "allowed: ersst_v5, "),
        (("oisst_v2_1",), "needs a start and an end"),
        (("oisst_v2_1", "soon", "2024-01-01"), "found 'soon'"),
        (("oisst_v2_1", "2024-01-02", "2024-01-01"), "not before the start"),
        (("oisst_v2_1", "1980-01-01", "1982-01-01"), "from 1981-09-01 to now"),
        (("opera_rain_rate_odyssey", "2024-06-30", "2024-07-01"), "to 2024-06-30T23:45"),
    ],
)
def test_a_wrong_request_is_a_usage_error(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        archive_urls(*arguments)
