"""Maps: the right colour at the right place, readable, self-contained, offline, and nothing left behind."""

import gc
import json
import os
import re
import subprocess
import sys
import weakref
from itertools import combinations
from pathlib import Path
from typing import Any

import cartopy.crs as ccrs
import cartopy.io.shapereader as shapereader
import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

import cubecast
from cubecast.cube import cube_step
from cubecast.errors import InputError, OutputError, UsageError
from cubecast.maps import animate, draw_maps, plot_comparison, plot_field, plot_leads, plot_systems, save_figure
from cubecast.maps.colours import DRY, MISSING, RAIN_BOUNDS, RAIN_COLOURS, field_style
from cubecast.product import build_forecast

STEREO = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=25 +R=6371288 +x_0=380886.31 +y_0=3395677.92"
ALBERS = "+proj=aea +lat_1=-18 +lat_2=-36 +lat_0=-27.7 +lon_0=153.2 +ellps=GRS80"
NATURAL_EARTH = Path(cubecast.__file__).parent / "naturalearth" / "shapefiles" / "natural_earth"


def rain(crs: str | None = STEREO, *, frames: int = 8, units: str = "mm h-1") -> xr.DataArray:
    """Dry fields (40, 30) with one block of 20 mm/h in row 10..13 and column 20..23, no data in the first rows."""
    values = np.zeros((frames, 40, 30), "float32")
    values[:, 10:14, 20:24] = 20.5
    values[:, :4] = np.nan
    time = np.datetime64("2017-05-09T12:00", "ns") + np.arange(frames) * np.timedelta64(5, "m")
    attrs = {"units": units, "standard_name": "rainfall_rate", "long_name": "rain"}
    coords: dict[str, Any] = {"time": time}
    dims = ("time", "y", "x")
    if crs is None:
        dims = ("time", "lat", "lon")
        coords["lat"] = ("lat", 60 - np.arange(40) * 0.1, {"units": "degrees_north"})
        coords["lon"] = ("lon", 10 + np.arange(30) * 0.1, {"units": "degrees_east"})
    else:
        size, unit = (20_000.0, "m") if crs == STEREO else (2.0, "km")
        start = (1.2e6, 0.0) if crs == STEREO else (40.0, -30.0)
        coords["y"] = ("y", start[0] - np.arange(40) * size, {"units": unit})
        coords["x"] = ("x", start[1] + np.arange(30) * size, {"units": unit})
        coords["crs"] = ((), np.int32(0), pyproj.CRS(crs).to_cf())
        attrs["grid_mapping"] = "crs"
    return xr.DataArray(values, coords, dims, "rainfall_rate", attrs)


def sst() -> xr.DataArray:
    """Monthly SST in K on a 0..360 grid, descending latitudes; warm in the east Pacific, land where Africa is."""
    lat, lon = np.arange(88.0, -89, -4), np.arange(0.0, 360, 4)
    one = 273.15 + 28 * np.cos(np.deg2rad(lat))[:, None] + 0 * lon
    one[(np.abs(lat) < 20)[:, None] & (np.abs(lon - 24) < 12)] = np.nan
    time = (np.datetime64("2017-01") + np.arange(8)).astype("datetime64[ns]")
    coords = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    attrs = {"units": "K", "standard_name": "sea_surface_temperature"}
    return xr.DataArray(np.stack([one] * 8), {"time": time, **coords}, ("time", "lat", "lon"), "sst", attrs)


def persistence(cube: xr.DataArray, *, at: int = 1, leads: int = 4, members: int = 0) -> xr.Dataset:
    shape = (1, members, leads) if members else (1, leads)
    values = np.broadcast_to(cube.values[at], shape + cube.shape[1:])
    reference = cube.time.values[[at]]
    return build_forecast({str(cube.name): values}, cube, reference=reference, step=cube_step(cube))


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]


def colour_at(figure: Figure, x: float, y: float, *, axes: int = 0) -> tuple[int, ...]:
    """The most common colour of 7 x 7 pixels around a point of the axes' projection."""
    picture = pixels(figure)
    column, row = figure.axes[axes].transData.transform((x, y))
    part = picture[picture.shape[0] - int(row) - 4 :, int(column) - 3 :][:7, :7].reshape(-1, 3)
    found, counts = np.unique(part, axis=0, return_counts=True)
    return tuple(int(v) for v in found[counts.argmax()])


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(round(255 * v) for v in to_rgb(colour))


HEAVY = rgb(RAIN_COLOURS[RAIN_BOUNDS.index(20.0)])
GRIDS = {"polar stereographic, m": STEREO, "Albers, km": ALBERS, "lat/lon": None}


@pytest.mark.parametrize("crs", GRIDS.values(), ids=GRIDS)
def test_a_rain_cell_of_known_longitude_lands_on_its_pixel(crs: str | None) -> None:
    """The place is computed with pyproj from the grid, the pixel with cartopy from longitude and latitude."""
    field = rain(crs)[0]
    y, x = (float(field[d][i]) for d, i in zip(field.dims, (12, 22), strict=True))
    if crs is None:
        lon, lat = x, y
    else:
        metres = 1000 if crs == ALBERS else 1
        lon, lat = pyproj.Proj(crs)(x * metres, y * metres, inverse=True)
    figure = plot_field(field, coastline="none")
    ax = figure.axes[0]
    at = ax.projection.transform_point(lon, lat, ccrs.PlateCarree())  # type: ignore[attr-defined]
    assert colour_at(figure, *at) == HEAVY
    west, east, south, north = ax.get_extent()  # type: ignore[attr-defined]
    cell = (east - west) / 30, (north - south) / 40
    for dx, dy in ((5, 0), (-5, 0), (0, 5), (0, -5)):
        assert colour_at(figure, at[0] + dx * cell[0], at[1] + dy * cell[1]) == rgb(DRY)


@pytest.mark.parametrize("crs", [STEREO, ALBERS])
def test_coasts_lie_where_natural_earth_has_them(crs: str) -> None:
    figure = plot_field(rain(crs)[0])
    coast = next(c for c in figure.axes[0].collections if c.get_label() == "coast")
    assert isinstance(coast, LineCollection)
    lines = [line for line in coast.get_segments() if len(line)]
    points = np.concatenate(lines)
    lon, lat = pyproj.Proj(crs)(*points.T, inverse=True)
    raw = shapereader.Reader(NATURAL_EARTH / "physical" / "ne_50m_coastline.shp").geometries()
    near = [g for g in raw if shapely.box(lon.min(), lat.min(), lon.max(), lat.max()).intersects(g)]
    known = shapely.GeometryCollection(near)
    away = shapely.distance(known, shapely.points(lon, lat))
    assert len(points) > 10
    assert away.max() < 0.02
    west, east, south, north = figure.axes[0].get_extent()  # type: ignore[attr-defined]
    inside = (points[:, 0] >= west) & (points[:, 0] <= east) & (points[:, 1] >= south) & (points[:, 1] <= north)
    assert inside.mean() > 0.5


def test_a_pacific_map_is_centred_and_has_values_at_their_longitudes() -> None:
    field = sst()[0]
    field.values[:, field.lon.values == 268] = 290.0  # 92 W
    figure = plot_field(field, coastline="none")
    ax = figure.axes[0]
    assert ax.get_xlim() == (-180, 180)
    at = [ax.projection.transform_point(lon, 60.0, ccrs.PlateCarree()) for lon in (-92.0, -84.0)]  # type: ignore[attr-defined]
    style = field_style(field.assign_attrs(units="degC") - 273.15, [])
    assert style.cmap.N == 256
    warm, cool = (np.array(colour_at(figure, *point)) for point in at)
    assert np.abs(warm.astype(int) - cool).sum() > 30
    assert warm.sum() > cool.sum()


def test_missing_is_neither_dry_nor_rain() -> None:
    figure = plot_field(rain()[0], coastline="none")
    picture = pixels(figure)
    ax = figure.axes[0]
    west, east, south, north = ax.get_extent()  # type: ignore[attr-defined]
    (x0, y1), (x1, y0) = ax.transData.transform([(west, north - (north - south) / 10), (east, north)])
    missing = picture[picture.shape[0] - int(y0) + 4 : picture.shape[0] - int(y1) - 4, int(x0) + 4 : int(x1) - 4]
    colours = {tuple(c) for c in np.unique(missing.reshape(-1, 3), axis=0).tolist()}
    assert rgb(MISSING) in colours
    assert len(colours) > 2  # hatched
    assert not colours & {rgb(DRY), *(rgb(c) for c in RAIN_COLOURS)}
    assert "no data" in [t.get_text() for t in figure.texts]
    without = plot_field(rain()[0, 4:], coastline="none")
    assert "no data" not in [t.get_text() for t in without.texts]


def test_rain_bounds_belong_to_the_class_above_with_the_slack_of_packed_values() -> None:
    style = field_style(rain()[0], [])
    values = np.array([0.0, 0.0999, 0.0999999, 0.1, 0.2, 19.9999999, 20.0, 99.0, 100.0, 2000.0])
    want = [DRY, DRY, *(RAIN_COLOURS[i] for i in (0, 0, 1, 7, 7, 8, 9, 9))]
    want[5] = RAIN_COLOURS[RAIN_BOUNDS.index(20.0)]
    got = [tuple(round(255 * v) for v in c[:3]) for c in style.cmap(style.norm(values))]
    assert got == [rgb(c) for c in want]


def test_rain_colours_can_be_told_apart_by_colour_blind_readers() -> None:
    """Pairwise distances in CIELAB, seen with the simulations of Machado et al. (2009), at full severity."""
    eyes = {
        "normal": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    srgb = np.array([to_rgb(c) for c in (DRY, MISSING, *RAIN_COLOURS)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
    )
    for name, matrix in eyes.items():
        xyz = np.clip(linear @ np.array(matrix).T, 0, 1) @ to_xyz.T / [0.95047, 1, 1.08883]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)
        nearest = min(float(np.linalg.norm(a - b)) for a, b in combinations(lab, 2))
        assert nearest > 8, name


def test_units_are_those_that_people_read() -> None:
    figure = plot_field((rain(units="m s-1")[0] / 3.6e6).assign_attrs(rain(units="m s-1").attrs), coastline="none")
    assert figure.axes[1].get_ylabel() == "Rainfall rate (mm h⁻¹)"
    assert (pixels(figure) == HEAVY).all(axis=-1).any()
    figure = plot_field(sst()[0], coastline="none")
    assert figure.axes[1].get_ylabel() == "Sea surface temperature (°C)"


def test_anomalies_are_symmetric_about_zero() -> None:
    anomaly = (sst()[0] - 280).assign_attrs(units="K", long_name="SST anomaly")
    style = field_style(anomaly, [anomaly.values])
    assert style.norm.vmin == -style.norm.vmax
    assert style.cmap.name == "balance"


# -------------------------------------------------------------------------------------------------- figures


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def test_leads_are_named_by_lead_and_valid_time() -> None:
    figure = plot_leads(persistence(rain(), leads=12), coastline="none")
    assert figure.texts[0].get_text() == "Rainfall rate forecast from 2017-05-09 12:05 UTC"
    assert titles(figure) == [
        f"+{10 * i} min\nvalid 2017-05-09 {clock} UTC"
        for i, clock in enumerate(("12:15", "12:25", "12:35", "12:45", "12:55", "13:05"), 1)
    ]
    figure = plot_leads(persistence(sst()), leads=[0, -1], coastline="none")
    assert titles(figure) == ["+1 month\nvalid 2017-03", "+4 months\nvalid 2017-06"]
    ensemble = persistence(rain(), members=3)
    figure = plot_leads(ensemble, coastline="none")
    assert figure.texts[0].get_text().endswith(", mean of 3 members")
    one = ensemble.rainfall_rate.isel(forecast_reference_time=0, realization=0, lead_time=1)
    assert titles(plot_field(one, coastline="none")) == ["+10 min, valid 2017-05-09 12:15 UTC"]


def test_comparison_shows_observed_forecast_and_their_difference() -> None:
    cube = rain()
    cube[2] = cube[2] + 1.5
    cube = cube.isel(time=[0, 1, 2, 4, 5, 6, 7])  # no frame at 12:15
    figure = plot_comparison(
        persistence(rain(), at=0), cube, leads=[1, 2], coastline="none", attribution="Data: nobody"
    )
    assert titles(figure)[0] == "Observed\n2017-05-09 12:10 UTC"
    assert titles(figure)[2:4] == ["Forecast +10 min", "Forecast +15 min"]
    assert "Data: nobody" in [t.get_text() for t in figure.texts]
    x, y = float(cube.x[5]), float(cube.y[20])
    observed, absent, forecast, _, difference, unknown = (colour_at(figure, x, y, axes=i) for i in range(6))
    assert observed == rgb(RAIN_COLOURS[3])
    assert forecast == rgb(DRY)
    assert difference[2] > difference[0]  # too little rain is blue
    assert {absent, unknown} <= {rgb(MISSING), rgb("#bcbcbc")}


def test_another_variable_is_not_set_beside_the_forecast(tmp_path: Path) -> None:
    cube = rain()
    made = persistence(cube, at=0)
    both = made.assign(other=made["rainfall_rate"].rename("other"))
    draw_maps(both, tmp_path, cube=cube, coastline="none")
    assert {p.name.split("_2")[0] for p in tmp_path.glob("*comparison*")} == {"rainfall_rate"}
    with pytest.raises(InputError, match="the observed cube has not the variable: found snow; allowed: other"):
        plot_comparison(both, cube.rename("snow"), variable="other", coastline="none")
    assert plot_comparison(made, cube.rename("snow"), coastline="none")  # there is no other


def test_longitude_before_latitude_is_refused() -> None:
    field = sst()[0].transpose("lon", "lat")
    with pytest.raises(InputError, match="latitude first; transpose the field"):
        plot_field(field, coastline="none")


def test_comparison_brings_the_observation_to_the_units_of_the_forecast() -> None:
    cube = rain()
    metres = (cube / 3.6e6).assign_attrs({**cube.attrs, "units": "m s-1"})
    figure = plot_comparison(persistence(cube), metres, leads=[0], coastline="none")
    assert colour_at(figure, float(cube.x[22]), float(cube.y[12]), axes=0) == HEAVY
    assert colour_at(figure, float(cube.x[22]), float(cube.y[12]), axes=2) == rgb("#ffffff")


def test_systems_stand_below_the_observations_in_the_same_colours() -> None:
    cube = rain()
    heavier = persistence(cube, at=0)
    heavier["rainfall_rate"] = (heavier["rainfall_rate"] + 1.5).assign_attrs(cube.attrs)
    figure = plot_systems({"persistence": persistence(cube, at=0), "a_b": heavier}, cube, leads=[1, 2])
    assert titles(figure)[:2] == ["Observed, +10 min\n2017-05-09 12:10 UTC", "Observed, +15 min\n2017-05-09 12:15 UTC"]
    assert titles(figure)[2:6] == ["persistence", "persistence", "a b", "a b"]
    x, y = float(cube.x[5]), float(cube.y[20])
    assert [colour_at(figure, x, y, axes=i) for i in (0, 2, 4)] == [rgb(DRY), rgb(DRY), rgb(RAIN_COLOURS[3])]
    members = xr.concat([heavier, persistence(cube, at=0)], "realization")
    assert titles(plot_systems({"e": members}, cube, leads=[1], coastline="none"))[1] == "e, mean of members"
    many = plot_systems({f"system {i}": heavier for i in range(6)}, cube, leads=[0, 1, 2], coastline="none")
    assert overlaps(many) == []
    with pytest.raises(UsageError, match="no map: found no forecast"):
        plot_systems({}, cube)


def overlaps(figure: Figure) -> list[str]:
    """Texts that leave the figure or lie on each other."""
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text().strip() and t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    boxes = [(text, box) for text, box in boxes if box.width > 1 and _on_axis(text, box, figure)]
    edge = figure.bbox
    out = [text for text, b in boxes if b.x0 < 0 or b.y0 < 0 or b.x1 > edge.width or b.y1 > edge.height]
    return out + [f"{a} / {b}" for (a, s), (b, t) in combinations(boxes, 2) if s.shrunk(0.95, 0.8).overlaps(t)]


def _on_axis(text: str, box: Any, figure: Figure) -> bool:
    """Whether a text is drawn: hidden tick labels have a box too."""
    return any(
        text == t.get_text() and np.allclose(t.get_window_extent().bounds, box.bounds)
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        if axis.get_visible()
        for t in (*axis.get_ticklabels(), axis.label)
    ) or any(text == t.get_text() for t in (*figure.texts, *(ax._left_title for ax in figure.axes)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("cube", [rain(STEREO), rain(ALBERS), rain(None), sst()], ids=[*GRIDS, "sst"])
def test_no_text_is_clipped_or_lies_on_another(cube: xr.DataArray) -> None:
    made = persistence(cube)
    assert overlaps(plot_field(cube[0])) == []
    assert overlaps(plot_leads(made)) == []
    assert overlaps(plot_comparison(made, cube)) == []
    assert overlaps(plot_field(cube[0], title="a very long title " * 8)) == []


def test_the_check_for_overlaps_can_fail() -> None:
    figure = plot_field(rain()[0], coastline="none")
    figure.text(0.95, 0.5, "beyond the edge of the figure")
    figure.text(0.1, 0.5, "one")
    figure.text(0.1, 0.5, "two")
    assert len(overlaps(figure)) == 2


def test_graticule_labels_stand_at_their_degrees() -> None:
    field = rain(STEREO)[0]
    figure = plot_field(field, coastline="none")
    ax = figure.axes[0]
    figure.canvas.draw()
    south, west = ax.get_ylim()[0], ax.get_xlim()[0]
    shown = [(t.get_text(), p) for t, p in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)]
    assert len(shown) >= 2
    for text, x in shown:
        lon, _ = pyproj.Proj(STEREO)(x, south, inverse=True)
        assert lon == pytest.approx(float(text.rstrip("°E")), abs=0.01)
    for text, y in [(t.get_text(), p) for t, p in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)]:
        _, lat = pyproj.Proj(STEREO)(west, y, inverse=True)
        assert lat == pytest.approx(float(text.rstrip("°N")), abs=0.01)


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:3413",
        "EPSG:3031",
        "EPSG:28992",
        "EPSG:3857",
        "+proj=ob_tran +o_proj=longlat +o_lat_p=39 +o_lon_p=0 +lon_0=18",
    ],
)
def test_any_projection_can_be_drawn(crs: str) -> None:
    projected = pyproj.CRS(crs)
    rotated = projected.is_geographic
    lon, lat = {"EPSG:3413": (-45, 89), "EPSG:3031": (0, -88)}.get(crs, (5, 52))
    x, y = (0, 0) if rotated else pyproj.Transformer.from_crs(4326, projected, always_xy=True).transform(lon, lat)
    size = 1.0 if rotated else 50_000.0
    field = rain()[0].drop_vars(["x", "y", "crs"])
    unit = {"units": "degrees" if rotated else "m"}
    field = field.assign_coords(
        x=("x", x + size * (np.arange(30) - 15), unit),
        y=("y", y + size * (20 - np.arange(40)), unit),
        crs=((), 0, projected.to_cf()),
    )
    figure = plot_field(field)
    assert colour_at(figure, x + 7 * size, y + 8 * size) == HEAVY
    assert any(len(c.get_segments()) for c in figure.axes[0].collections if c.get_label() == "coast")


def test_grids_across_the_date_line_and_uneven_ones() -> None:
    field = rain(None)[0].assign_coords(lat=("lat", -15 - np.arange(40) * 0.25, {"units": "degrees_north"}))
    east = field.assign_coords(lon=("lon", 175 + np.arange(30) * 0.3, {"units": "degrees_east"}))
    wrapped = east.assign_coords(lon=("lon", (east.lon.values + 180) % 360 - 180, {"units": "degrees_east"}))
    a, b = (pixels(plot_field(f)) for f in (east, wrapped))
    np.testing.assert_array_equal(a, b)
    uneven = field.assign_coords(lat=("lat", -15 - np.arange(40) ** 1.3 * 0.1, {"units": "degrees_north"}))
    figure = plot_field(uneven, coastline="none")
    assert any(isinstance(c, QuadMesh) for c in figure.axes[0].collections)
    assert colour_at(figure, float(uneven.lon[22]), float(uneven.lat[12])) == HEAVY


def test_a_field_without_a_crs_is_drawn_on_its_own_coordinates() -> None:
    field = rain().drop_vars("crs")[0]
    del field.attrs["grid_mapping"]
    figure = plot_field(field)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("x (m)", "y (m)")
    assert colour_at(figure, float(field.x[22]), float(field.y[12])) == HEAVY


# -------------------------------------------------------------------------------------------------- files


def test_figures_are_saved_in_the_format_of_their_suffix(tmp_path: Path) -> None:
    figure = plot_field(rain()[0], coastline="none")
    for name, magic in (("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml")):
        save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(magic)
    with pytest.raises(UsageError, match=r"\.jpg.*allowed: \.png"):
        save_figure(figure, tmp_path / "a.jpg")
    with pytest.raises(OutputError, match="no folder"):
        save_figure(figure, tmp_path / "absent" / "a.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_gif_has_one_frame_a_lead_and_true_white(tmp_path: Path) -> None:
    animate(persistence(rain(), leads=4), tmp_path / "f.gif", coastline="none", cube=rain(), seconds=0.2)
    with Image.open(tmp_path / "f.gif") as picture:
        assert picture.n_frames == 4
        frames = []
        for i in range(4):
            picture.seek(i)
            frames.append(np.asarray(picture.convert("RGB")))
            assert picture.info["duration"] == (200 if i < 3 else 600)
    assert all((a != b).any() for a, b in combinations(frames, 2))
    assert (frames[0][:3] == 255).all()
    assert (frames[2] == HEAVY).all(axis=-1).any()


def test_a_cube_is_animated_frame_by_frame(tmp_path: Path) -> None:
    animate(rain(None, frames=3), tmp_path / "c.gif", coastline="none")
    with Image.open(tmp_path / "c.gif") as picture:
        assert picture.n_frames == 3


def test_html_holds_everything_it_needs(tmp_path: Path) -> None:
    made = persistence(rain(None)).assign_attrs(title="x")
    made["rainfall_rate"].attrs.update(long_name="</script><b>rain & hail", standard_name="")
    animate(made, tmp_path / "f.html", coastline="none")
    text = (tmp_path / "f.html").read_text(encoding="utf-8")
    assert "http" not in text
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", text)
    assert "</script><b>" not in text
    assert text.count("<script>") == text.count("</script>") == 1
    frames = json.loads(re.search(r"const frames = (\[.*?\]);", text)[1])  # type: ignore[index]
    labels = json.loads(re.search(r"const labels = (\[.*?\]);", text)[1])  # type: ignore[index]
    assert len(frames) == len(set(frames)) == 4
    assert all(f.startswith("data:image/png;base64,") for f in frames)
    assert labels[0] == "2017-05-09 12:10 UTC (+5 min)"
    assert 'max="3"' in text


def test_mp4_needs_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UsageError, match=r"no ffmpeg.*write \.gif or \.html"):
        animate(persistence(rain()), tmp_path / "f.mp4")
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho broken codec >&2\nexit 3\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    with pytest.raises(OutputError, match="broken codec"):
        animate(persistence(rain()), tmp_path / "f.mp4", coastline="none")
    (tmp_path / "ffmpeg").write_text('#!/bin/sh\nfor last; do :; done\n/bin/cat > "$last"\n')
    animate(persistence(rain()), tmp_path / "f.mp4", coastline="none")
    figure = plot_field(rain()[0], coastline="none")
    wide, high = (round(v * 100) for v in figure.get_size_inches())
    size = (tmp_path / "f.mp4").stat().st_size
    assert size % 4 == 0
    assert abs(size / 4 / 3 - wide * high) < 0.05 * wide * high
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.mp4", "ffmpeg"]


def test_a_folder_of_maps(tmp_path: Path) -> None:
    cube = rain()
    two = xr.concat([persistence(cube, at=i, leads=1) for i in (0, 1)], "forecast_reference_time", join="outer")
    seen: list[Any] = []

    def bar(items: Any, description: str, total: int | None) -> Any:
        seen.append((description, total))
        return items

    paths = draw_maps(two, tmp_path / "new" / "maps", cube=cube, animations=["gif"], coastline="none", progress=bar)
    stems = ["rainfall_rate_20170509T1200", "rainfall_rate_20170509T1205"]
    ends = ["_+0005min.png", "_leads.png", "_comparison.png", ".gif"]
    assert [p.name for p in paths] == [stem + end for stem in stems for end in ends]
    assert sorted(p.name for p in (tmp_path / "new" / "maps").iterdir()) == sorted(p.name for p in paths)
    assert ("maps", 2) in seen
    with Image.open(paths[0]) as first, Image.open(paths[4]) as second:
        assert (np.asarray(first) != np.asarray(second)).any()  # the titles differ


def test_a_folder_of_maps_is_begun_only_when_it_can_be_finished(tmp_path: Path) -> None:
    cube, made = rain(), persistence(rain())
    later = cube.assign_coords(time=cube.time + np.timedelta64(9, "D"))
    for options, error in (
        ({"animations": ["avi"]}, "'avi'.*allowed: gif, mp4, html"),
        ({"cube": cube[:, 1:]}, "does not lie on the grid"),
        ({"cube": later}, "none of the valid times"),
        ({"variable": "snow"}, "snow"),
    ):
        with pytest.raises((UsageError, InputError), match=error):
            draw_maps(made, tmp_path / "maps", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_forecasts_beyond_the_observations_get_maps_without_a_comparison(tmp_path: Path) -> None:
    cube = rain(frames=4)
    two = xr.concat([persistence(cube, at=i, leads=1) for i in (2, 3)], "forecast_reference_time", join="outer")
    names = [p.name for p in draw_maps(two, tmp_path, cube=cube, coastline="none")]
    assert [n for n in names if "comparison" in n] == ["rainfall_rate_20170509T1210_comparison.png"]


def test_bad_requests_are_named() -> None:
    cube, made = rain(), persistence(rain())
    for options, error in (
        ({"variable": "snow"}, "'snow'.*allowed: rainfall_rate"),
        ({"reference": "2020-01-01"}, "2020-01-01.*allowed: 1: 2017-05-09 12:05 UTC"),
        ({"reference": "noon"}, "noon"),
        ({"leads": [4]}, r"\[4\].*allowed: positions 0 to 3"),
        ({"leads": []}, "leads"),
        ({"coastline": "5m"}, "'5m'.*allowed: auto"),
    ):
        with pytest.raises(UsageError, match=error):
            plot_leads(made, **options)
    with pytest.raises(InputError, match="not a forecast"):
        plot_leads(cube)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not lie on the grid"):
        plot_comparison(made, cube[:, 1:])
    with pytest.raises(InputError, match="none of the valid times"):
        plot_comparison(made, cube.assign_coords(time=cube.time + np.timedelta64(9, "D")))
    with pytest.raises(InputError, match="allowed: one field"):
        plot_field(cube)
    with pytest.raises(InputError, match="plot_series"):
        plot_leads(persistence(cube[:, 20, :].rename(x="station").drop_vars("crs")))
    with pytest.raises(InputError, match=r"'y'.*units ''.*allowed: m or km"):
        plot_field(cube[0].assign_coords(y=cube.y.values))
    with pytest.raises(UsageError, match=r"\.avi"):
        animate(made, "f.avi")


# -------------------------------------------------------------------------------------------------- no state


ALONE = """
import socket, sys
def refuse(*args, **kwargs): raise OSError("this test has no network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import numpy as np, xarray as xr
from cubecast.errors import InputError
from cubecast.maps import plot_field, save_figure
d = {"units": "degrees_north"}, {"units": "degrees_east"}
coords = {"lat": ("lat", np.arange(40.0, 60), d[0]), "lon": ("lon", np.arange(20.0), d[1])}
field = xr.DataArray(np.ones((20, 20)), coords, ("lat", "lon"), "rain", {"units": "mm h-1"})
for name in ("auto", "110m"):
    save_figure(plot_field(field, coastline=name), sys.argv[1])
try:
    plot_field(field, coastline="10m")
except InputError as error:
    print(error)
print([name for name in ("matplotlib.pyplot", "torch", "cmocean") if name in sys.modules])
"""


def test_maps_need_no_network_and_no_pyplot(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "MPLCONFIGDIR": str(tmp_path / "mpl")}
    env.pop("CARTOPY_DATA_DIR", None)
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "f.png")], capture_output=True, text=True, check=False, env=env
    )
    assert run.returncode == 0, run.stderr
    assert "cannot download the 10m coastline" in run.stdout
    assert run.stdout.endswith("[]\n")


def test_figures_are_freed() -> None:
    seen = [weakref.ref(plot_field(rain()[0], coastline="none")) for _ in range(3)]
    gc.collect()
    assert [ref() for ref in seen] == [None, None, None]


def test_real_radar_and_sst_look_right(real_data: Path) -> None:
    """Coverage is round and in its place: KNMI's map is dry or wet in De Bilt and missing in the corners."""
    with xr.open_dataset(real_data / "radar" / "knmi_20100826.nc", decode_coords="all") as dataset:
        field = dataset.rainfall_rate.isel(time=40).load()
    field.attrs["grid_mapping"] = "crs"
    figure = plot_field(field)
    projection = figure.axes[0].projection  # type: ignore[attr-defined]
    known = {rgb(DRY), *(rgb(c) for c in RAIN_COLOURS)}
    assert colour_at(figure, *projection.transform_point(5.18, 52.10, ccrs.PlateCarree())) in known
    west, east, south, north = figure.axes[0].get_extent()  # type: ignore[attr-defined]
    assert colour_at(figure, west + (east - west) * 0.03, north - (north - south) * 0.03) in {
        rgb(MISSING),
        rgb("#bcbcbc"),
    }
    with xr.open_dataset(real_data / "sst" / "ersstv5_201001_202008.nc") as dataset:
        ocean = dataset.sst.isel(time=0).load()
    figure = plot_field(ocean.assign_attrs(standard_name="sea_surface_temperature", units="degC"), coastline="none")
    projection = figure.axes[0].projection  # type: ignore[attr-defined]
    land, pacific = ([projection.transform_point(x, y, ccrs.PlateCarree())] for x, y in ((20.0, 10.0), (-120.0, 10.0)))
    assert colour_at(figure, *land[0]) in {rgb(MISSING), rgb("#bcbcbc")}
    assert colour_at(figure, *pacific[0]) not in {rgb(MISSING), rgb("#bcbcbc")}
