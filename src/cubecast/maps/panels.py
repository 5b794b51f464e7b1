"""Figures of maps: one field, a panel of leads, observed beside forecast beside their difference."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from cubecast.maps.basemap import Coastline, draw_basemap, draw_graticule
from cubecast.maps.colours import HATCH, MISSING, Style
from cubecast.maps.projection import Place

DPI = 150
TITLE, _SMALL = 9.0, 7.5
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Panel:
    """One map: values (y, x) as the cube has them, their colours and the title above."""

    values: Values
    style: Style
    title: str


@dataclass
class Drawn:
    """What an animation changes from frame to frame."""

    figure: Figure
    axes: list[Axes]
    images: list[AxesImage | QuadMesh]


@dataclass(frozen=True)
class Layout:
    """Sizes in inches: a grid of equal panels with room for labels, titles, a colour bar for each row and a heading.

    ``space`` is left below each row, so that a colour bar beside a flat map is long enough to be read.
    """

    rows: int
    columns: int
    width: float
    height: float
    gap: float
    title: float
    space: float
    head: float
    foot: float

    left: float = 0.55
    bar: float = 1.11

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        across = self.left + self.columns * (self.width + self.gap) + self.bar
        return across, self.head + self.rows * (self.title + self.height + self.space) + self.foot

    def rectangle(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel in parts of the figure."""
        wide, high = self.size
        x = self.left + column * (self.width + self.gap)
        y = high - self.head - row * (self.title + self.height + self.space) - self.title - self.height
        return x / wide, y / high, self.width / wide, self.height / high


def draw_panels(
    panels: Sequence[Sequence[Panel]],
    place: Place,
    *,
    heading: str,
    coastline: Coastline = "auto",
    attribution: str | None = None,
) -> Drawn:
    """Draw rows of panels of one grid, each row with its colour bar; neighbouring rows of one style share one.

    Args:
        panels: rows of equal length; a row's panels share their style.
        place: where the grid lies.
        heading: above everything.
        coastline: see `basemap.draw_basemap`.
        attribution: small text below, such as the owner of the data.
    """
    layout, text = _layout(panels, place.aspect, heading=heading, foot=0.34 + 0.16 * bool(attribution))
    figure = Figure(figsize=layout.size, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    drawn = Drawn(figure, [], [])
    wide, high = layout.size
    figure.text(layout.left / wide, 1 - 0.12 / high, text, fontsize=11, fontweight="bold", va="top", linespacing=1.3)
    for i, row in enumerate(panels):
        for j, panel in enumerate(row):
            lowest = i == len(panels) - 1 or len(panels[i + 1]) <= j
            ax = _axes(figure, layout.rectangle(i, j), place)
            drawn.axes.append(ax)
            drawn.images.append(draw_field(ax, panel, place))
            draw_basemap(ax, place, coastline=coastline)
            draw_graticule(ax, place, left=j == 0, bottom=lowest)
            set_title(ax, panel.title)
    _draw_bars(figure, panels, layout)
    if attribution:
        figure.text(layout.left / wide, 0.07 / high, attribution, fontsize=6.5, color="#555555", va="bottom")
    return drawn


def _layout(panels: Sequence[Sequence[Panel]], aspect: float, *, heading: str, foot: float) -> tuple[Layout, str]:
    """Panels of about 30 square inches for one, less for more, to fit into 15 x 11 inches; and the heading wrapped."""
    rows, columns = len(panels), max(len(row) for row in panels)
    area = {1: 32.0, 2: 19.0, 3: 13.0}.get(rows * columns, 8.5)
    bounded = min(max(aspect, 0.1), 6.0)
    width = min(float(np.sqrt(area / bounded)), (15.0 - 1.8) / columns, 10.0 / (rows * bounded))
    height = width * bounded
    title = 0.08 + 0.17 * (max(panel.title.count("\n") for row in panels for panel in row) + 1)
    beside_one_bar = min(last - first + 1 for first, last in _runs(panels))
    layout = Layout(
        rows=rows,
        columns=columns,
        width=width if bounded == aspect else height / aspect,
        height=height,
        gap=max(0.14, 1.95 - width),
        title=title,
        space=max(0.0, 2.1 / beside_one_bar - title - height),
        head=0.0,
        foot=foot,
    )
    lines = textwrap.wrap(heading, int((layout.size[0] - layout.left) * 10.5))
    return replace(layout, head=0.15 + 0.21 * max(len(lines), 1)), "\n".join(lines)


def _runs(panels: Sequence[Sequence[Panel]]) -> list[tuple[int, int]]:
    """First and last row of each run of rows that share a style, and so a colour bar."""
    runs: list[tuple[int, int]] = []
    for i, row in enumerate(panels):
        if i and panels[i - 1][0].style is row[0].style:
            runs[-1] = runs[-1][0], i
        else:
            runs.append((i, i))
    return runs


def _axes(figure: Figure, rectangle: tuple[float, float, float, float], place: Place) -> Axes:
    options = {} if place.projection is None else {"projection": place.projection}
    ax: Axes = figure.add_axes(rectangle, **options)
    # what no cell covers with a colour is missing: grey and hatched, so that it is not taken for dry
    ax.patch.set(facecolor=MISSING, hatch="////", edgecolor=HATCH, linewidth=0)
    west, east, south, north = place.extent
    ax.set_xlim(west, east)
    ax.set_ylim(south, north)
    ax.set_aspect("auto")
    return ax


def draw_field(ax: Axes, panel: Panel, place: Place) -> AxesImage | QuadMesh:
    """Colour the cells of a field; cells of equal size are an image in its own projection: exact and fast."""
    values = np.ma.masked_invalid(place.ascending(panel.values))
    style = panel.style
    if place.regular:
        extent = (place.x_edges[0], place.x_edges[-1], place.y_edges[0], place.y_edges[-1])
        # Axes.imshow and not GeoAxes.imshow, which would resample an image that reaches beyond a pole
        return Axes.imshow(
            ax, values, extent=extent, origin="lower", cmap=style.cmap, norm=style.norm, aspect="auto",
            interpolation="nearest", zorder=1,
        )  # fmt: skip
    return Axes.pcolormesh(ax, place.x_edges, place.y_edges, values, cmap=style.cmap, norm=style.norm, zorder=1)


def set_title(ax: Axes, text: str) -> None:
    """The title of one map, above its left corner."""
    ax.set_title(text, fontsize=TITLE, loc="left", pad=4, linespacing=1.25)


def _draw_bars(figure: Figure, panels: Sequence[Sequence[Panel]], layout: Layout) -> None:
    """A colour bar to the right of each run of rows that share a style, with a swatch of what missing looks like."""
    wide, high = layout.size
    for first, last in _runs(panels):
        style = panels[first][0].style
        _, bottom, _, height = layout.rectangle(first, 0)
        top = bottom + height
        bottom = layout.rectangle(last, 0)[1] - layout.space / high
        length = min(top - bottom - (0.3 / high if style.missing else 0), 4.6 / high)
        x = (layout.left + layout.columns * (layout.width + layout.gap)) / wide
        _draw_bar(figure, figure.add_axes((x, top - length, 0.16 / wide, length)), style)
        if style.missing:
            _draw_swatch(figure, x, top - length - 0.26 / high, 0.16 / wide, 0.13 / high)


def _draw_bar(figure: Figure, ax: Axes, style: Style) -> None:
    bar = figure.colorbar(ScalarMappable(style.norm, style.cmap), cax=ax, extend=style.extend, extendfrac=0.04)
    inches = ax.get_position().height * figure.get_figheight()
    bar.set_label(textwrap.fill(style.label, max(12, int(inches * 13))), fontsize=TITLE)
    if style.ticks is not None and isinstance(style.norm, BoundaryNorm):
        bar.set_ticks(list(style.norm.boundaries), labels=[f"{t:g}".replace("-", "−") for t in style.ticks])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=_SMALL, length=2)
    bar.outline.set_linewidth(0.6)


def _draw_swatch(figure: Figure, x: float, y: float, width: float, height: float) -> None:
    swatch = Rectangle((x, y), width, height, facecolor=MISSING, edgecolor=HATCH, hatch="//////", lw=0)
    frame = Rectangle((x, y), width, height, facecolor="none", edgecolor="#555555", lw=0.6)
    for patch in (swatch, frame):
        patch.set_transform(figure.transFigure)
        figure.add_artist(patch)
    figure.text(x + width * 1.35, y + height / 2, "no data", fontsize=_SMALL, va="center")
