"""Moving MNIST: handwritten digits that bounce inside a square, the classic test of sequence forecasts."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.errors import InputError, UsageError

Array = npt.NDArray[Any]

STEP_LENGTH = 0.1
"""How far a digit moves in a frame, as a share of the room that it has; Srivastava et al. use the same."""
BLOCK = 32
"""Sequences that are made together (10 MB for 20 frames of 64 x 64)."""
_IMAGES = 0x803


def read_idx_images(path: str | os.PathLike[str]) -> Array:
    """The images of an IDX file such as ``t10k-images-idx3-ubyte.gz``: (image, y, x) uint8.

    Args:
        path: the file, as it was published (gzip) or unpacked.

    Raises:
        InputError: the file cannot be read, is not an IDX file of images, or is truncated.
    """
    what = f"IDX images {path}"
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except EOFError:
        raise InputError(what, found="a truncated gzip file", remedy="download it again") from None
    except (OSError, zlib.error) as error:
        raise InputError(what, found=str(error), allowed="a readable gzip or IDX file") from None
    magic, *shape = (int(v) for v in np.frombuffer(data[:16].ljust(16, b"\0"), ">i4"))
    if magic != _IMAGES:
        raise InputError(
            what,
            found=f"first four bytes {data[:4].hex(' ') or 'none'}",
            allowed=f"{_IMAGES.to_bytes(4).hex(' ')}, an IDX file of unsigned bytes in three dims",
            remedy="give the file of images, not that of labels",
        )
    if len(data) != 16 + int(np.prod(shape)):
        raise InputError(
            what,
            found=f"{len(data)} bytes",
            allowed=f"{16 + int(np.prod(shape))} for {shape[0]} images of {shape[1]} x {shape[2]}",
            remedy="download it again",
        )
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def moving_mnist(
    *,
    digits: str | os.PathLike[str] | Array,
    sequences: int,
    frames: int = 20,
    size: int = 64,
    digits_per_frame: int = 2,
    seed: int = 0,
) -> xr.DataArray:
    """Sequences of bouncing digits, one after the other (Srivastava et al. 2015, https://arxiv.org/abs/1502.04681).

    Each digit starts anywhere, moves in any direction by a tenth of the room between the walls in each frame, and is
    reflected at the walls; where digits overlap, the brighter pixel is seen. Sequence i depends on ``(seed, i)`` alone.
    Frames are 1 s apart and a gap as long as a sequence follows each one, so that no window holds frames of two
    sequences. Values are made when they are read, 32 sequences at a time.

    Args:
        digits: path of an IDX file of images, or images (image, y, x) as uint8 or as numbers in [0, 1]. To keep
            training and test digits apart, give parts of `read_idx_images`.
        sequences: number of sequences.
        frames: frames in a sequence.
        size: side of the square in pixels.
        digits_per_frame: digits in each sequence.
        seed: the same seed gives the same sequences.

    Returns:
        A lazy cube ``brightness(time, y, x)``, float32 in [0, 1].

    Raises:
        UsageError: a value out of range.
        InputError: the file of digits, see `read_idx_images`.
    """
    images = _images(digits)
    for name, found, least in (
        ("sequences", sequences, 1),
        ("frames", frames, 2),
        ("size", size, max(images.shape[1:])),
        ("digits_per_frame", digits_per_frame, 1),
    ):
        if found < least:
            raise UsageError(name, found=found, allowed=f"{least} or more")
    source, make = dask.delayed(images, pure=True), dask.delayed(_sequences, pure=True)
    blocks = []
    for first in range(0, sequences, BLOCK):
        numbers = range(first, min(first + BLOCK, sequences))
        values = make(source, numbers, frames, size, digits_per_frame, seed)
        blocks.append(dask.array.from_delayed(values, (len(numbers) * frames, size, size), np.float32))
    seconds = (np.arange(sequences)[:, None] * 2 * frames + np.arange(frames)).ravel()
    time = np.datetime64("2000-01-01", "ns") + seconds * np.timedelta64(1, "s")
    pixel = {"units": "1", "long_name": "pixel"}
    return xr.DataArray(
        dask.array.concatenate(blocks),
        dims=("time", "y", "x"),
        coords={
            "time": ("time", time, {"standard_name": "time"}),
            "y": ("y", np.arange(size, dtype=float), pixel),
            "x": ("x", np.arange(size, dtype=float), pixel),
        },
        attrs={"units": "1", "long_name": "brightness", "comment": f"Moving MNIST of cubecast, seed {seed}"},
        name="brightness",
    )


def _images(digits: str | os.PathLike[str] | Array) -> Array:
    """(image, y, x) float32 in [0, 1]."""
    given = read_idx_images(digits) if isinstance(digits, str | os.PathLike) else np.asarray(digits)
    if given.ndim != 3 or not given.size or given.dtype.kind not in "fiu":
        raise UsageError(
            "digits", found=f"{given.dtype} of shape {given.shape}", allowed="a path, or images (image, y, x)"
        )
    images = given.astype(np.float32) / (255 if given.dtype == np.uint8 else 1)
    if not (images.min() >= 0 and images.max() <= 1):
        raise UsageError(
            "digits", found=f"values {images.min():g} to {images.max():g}", allowed="uint8, or numbers in [0, 1]"
        )
    return images


def _sequences(images: Array, numbers: range, frames: int, size: int, digits_per_frame: int, seed: int) -> Array:
    """The frames of some sequences: (len(numbers) * frames, y, x)."""
    canvas = np.zeros((len(numbers), frames, size, size), np.float32)
    height, width = images.shape[1:]
    for sequence, number in zip(canvas, numbers, strict=True):
        rng = np.random.default_rng([seed, number])
        for image in images[rng.integers(len(images), size=digits_per_frame)]:
            path = (_path(rng, frames) * (size - height, size - width)).astype(int)
            for frame, (y, x) in zip(sequence, path, strict=True):
                part = frame[y : y + height, x : x + width]
                np.maximum(part, image, out=part)
    return canvas.reshape(-1, size, size)


def _path(rng: np.random.Generator, frames: int) -> Array:
    """(frame, 2) places in the unit square: straight on, with the side that leaves it set to the wall and reversed."""
    place, angle = rng.random(2), rng.random() * 2 * np.pi
    step = STEP_LENGTH * np.array([np.sin(angle), np.cos(angle)])
    path = np.empty((frames, 2))
    for index in range(frames):
        place = place + step
        step = np.where((place <= 0) | (place >= 1), -step, step)
        place = place.clip(0, 1)
        path[index] = place
    return path
