"""Animations of a forecast or a cube: GIF, MP4, or one HTML file with a slider that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from html import escape
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from cubecast.atomic import atomic_path
from cubecast.errors import OutputError, UsageError
from cubecast.maps.basemap import Coastline
from cubecast.maps.colours import field_style
from cubecast.maps.frames import Frames, cube_frames, forecast_frames, observed_values
from cubecast.maps.panels import Drawn, Panel, draw_panels, set_title
from cubecast.maps.projection import Place, find_place
from cubecast.progress import Progress, follow

Values = npt.NDArray[Any]
FORMATS = (".gif", ".mp4", ".html")
_DPI = 100
_UNKNOWN = 255


def animate(
    source: xr.Dataset | xr.DataArray,
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    reference: Any = None,
    cube: xr.DataArray | None = None,
    seconds: float = 0.4,
    coastline: Coastline = "auto",
    attribution: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write an animation of a forecast, lead by lead, or of a cube, frame by frame.

    Args:
        source: a forecast (see `cubecast.product`), or a cube; its fields are loaded, so select the frames first.
        path: ends in .gif, .mp4 (needs ffmpeg) or .html (one file with a slider; nothing is loaded from elsewhere).
        variable: None: the first one.
        reference: one of the reference times of the forecast; None: the last.
        cube: observed frames, drawn beside the forecast at the same times.
        seconds: how long a frame stays.
        coastline, attribution: as `cubecast.maps.plot_field`.
        progress: wraps the loop over frames.

    Raises:
        UsageError: another suffix, no ffmpeg, or no such variable or reference time.
        InputError: not a forecast or cube of fields, or an observed cube on another grid or at other times.
        OutputError: it cannot be written.
    """
    target = Path(path)
    if target.suffix not in FORMATS:
        raise UsageError(f"cannot write {path}", found=f"suffix {target.suffix!r}", allowed=", ".join(FORMATS))
    ffmpeg = find_ffmpeg() if target.suffix == ".mp4" else ""
    if isinstance(source, xr.DataArray):
        frames = cube_frames(source, variable=variable)
    else:
        frames = forecast_frames(source, variable=variable, reference=reference)
    columns = [frames.values()]
    if cube is not None:
        columns.insert(0, observed_values(cube, frames))
    place = find_place(frames.field)
    style = field_style(frames.field, [v for column in columns for v in column])
    titles = _titles(frames, len(columns))
    first = [Panel(column[0], style, title) for column, title in zip(columns, titles[0], strict=True)]
    drawn = draw_panels([first], place, heading=frames.heading, coastline=coastline, attribution=attribution)
    drawn.figure.set_dpi(_DPI)
    steps = list(zip(zip(*columns, strict=True), titles, strict=True))
    pictures = _render(drawn, place, follow(steps, "animation", len(steps), progress))
    with atomic_path(target) as temporary:
        if target.suffix == ".gif":
            _write_gif(temporary, pictures, count=len(steps), seconds=seconds)
        elif target.suffix == ".mp4":
            _write_mp4(temporary, pictures, seconds=seconds, ffmpeg=ffmpeg)
        else:
            labels = [" ".join(filter(None, (t, lead))) for t, lead in _pairs(frames)]
            _write_html(temporary, pictures, labels=labels, title=frames.heading, seconds=seconds)


def show_frame(drawn: Drawn, place: Place, values: Sequence[Values], titles: Sequence[str]) -> None:
    """Put other values (y, x) and titles on maps that are drawn already."""
    for ax, image, value, title in zip(drawn.axes, drawn.images, values, titles, strict=True):
        image.set_array(np.ma.masked_invalid(place.ascending(value)))
        set_title(ax, title)


def find_ffmpeg() -> str:
    """The ffmpeg program: the system's, or that of the package imageio-ffmpeg.

    Raises:
        UsageError: there is none.
    """
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            import imageio_ffmpeg  # type: ignore[import-not-found]

            found = str(imageio_ffmpeg.get_ffmpeg_exe())
        except (ImportError, RuntimeError):
            raise UsageError(
                "cannot write MP4",
                found="no ffmpeg on this machine",
                remedy="install ffmpeg or the package imageio-ffmpeg, or write .gif or .html",
            ) from None
    return found


def _pairs(frames: Frames) -> list[tuple[str, str]]:
    leads = [f"({lead})" for lead in frames.leads] or [""] * len(frames.times)
    return list(zip(frames.times, leads, strict=True))


def _titles(frames: Frames, columns: int) -> list[list[str]]:
    """The titles of each frame, one a column."""
    if not frames.leads:
        return [[time] for time in frames.times]
    if columns == 1:
        return [[f"{lead}, valid {time}"] for lead, time in zip(frames.leads, frames.times, strict=True)]
    return [[f"Observed {t}", f"Forecast {lead}"] for lead, t in zip(frames.leads, frames.times, strict=True)]


def _render(drawn: Drawn, place: Place, steps: Iterable[Any]) -> Iterator[Image.Image]:
    canvas = drawn.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)  # draw_panels made it
    for values, titles in steps:
        show_frame(drawn, place, values, titles)
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _one_palette(pictures: Iterator[Image.Image]) -> Iterator[Image.Image]:
    """The pictures in 255 colours common to all, so that the map does not flicker.

    The first picture holds them all: it has the colour bar. White and the colours of the bar are among its most
    frequent and stay exact; the rest, the edges of letters and lines, is found by median cut.
    """
    first = next(pictures)
    codes, counts = np.unique(_codes(first), return_counts=True)
    exact = _channels(codes[np.argsort(-counts)[:64]])
    found = first.quantize(191, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).getpalette() or []
    palette = np.concatenate([exact, np.array(found, dtype=np.int64).reshape(-1, 3)])[:255]
    # by hand: Pillow looks colours up in a coarse table, and white comes out as grey
    table = np.full(1 << 24, _UNKNOWN, dtype=np.uint8)
    for picture in chain([first], pictures):
        codes = _codes(picture)
        new = np.unique(codes[table[codes] == _UNKNOWN])
        table[new] = ((_channels(new)[:, None] - palette) ** 2).sum(axis=-1).argmin(axis=1)
        limited = Image.fromarray(table[codes], mode="P")
        limited.putpalette(palette.ravel().tolist())
        yield limited


def _codes(picture: Image.Image) -> Values:
    """Each pixel's colour as one number."""
    return np.asarray(picture).astype(np.int64) @ np.array([65536, 256, 1])


def _channels(codes: Values) -> Values:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)


def _write_gif(path: Path, pictures: Iterator[Image.Image], *, count: int, seconds: float) -> None:
    limited = _one_palette(pictures)
    first = next(limited)
    milliseconds = [round(seconds * 1000)] * (count - 1) + [round(seconds * 3000)]
    first.save(path, save_all=True, append_images=limited, duration=milliseconds, loop=0, optimize=False)


def _write_mp4(path: Path, pictures: Iterator[Image.Image], *, seconds: float, ffmpeg: str) -> None:
    """Frames are piped to ffmpeg, which gets its arguments as a list (no shell) and writes H.264."""
    first = next(pictures)
    size = f"{first.width}x{first.height}"
    command = [ffmpeg, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{1 / seconds:.6g}"]
    command += ["-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white", "-pix_fmt", "yuv420p", "-r", "25", "-y"]
    with subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None  # asked for
        with suppress(BrokenPipeError):  # ffmpeg has ended: it says why
            for picture in chain([first], pictures):
                process.stdin.write(picture.tobytes())
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdin = None
        error = process.communicate()[1].decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise OutputError(f"cannot write {path.suffix} with ffmpeg", found=error[-1] if error else "an error")


def _write_html(path: Path, pictures: Iterator[Image.Image], *, labels: list[str], title: str, seconds: float) -> None:
    frames = []
    for picture in _one_palette(pictures):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        frames.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
    page = Template((Path(__file__).parent / "slider.html").read_text(encoding="utf-8"))
    text = page.substitute(
        title=escape(title),
        frames=json.dumps(frames),
        labels=json.dumps(labels).replace("<", "\\u003c"),
        last=len(frames) - 1,
        milliseconds=round(seconds * 1000),
    )
    path.write_text(text, encoding="utf-8")
