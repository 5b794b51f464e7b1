"""Training on an archive that memory does not hold: ten times the archive takes the same memory."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cubecast.sources.synthetic import generate_rain
from cubecast.write import write_cube

FIT = """
import torch
from pathlib import Path
from cubecast.nowcaster import Nowcaster
from cubecast.sources import open_cube
torch.set_num_threads(1)
model = Nowcaster(history=3, horizon=2, hidden_channels=[4], patch=4, crop=64, epochs=1, stride=16)
model.fit(open_cube(path))
Path(said).write_text(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
SIDE, TIMES = 256, 10
GROWTH = 1.25


def test_training_on_an_archive_larger_than_memory(tally, launch, memory_disk):
    """Frames of 256 x 256 pixels, the chunks of which are linked again and again."""
    fault = tally("training on Zarr larger than its memory", short=1, full=2)
    frames = 40 * fault.tries**2
    one, small, large = (memory_disk / f"{name}.zarr" for name in ("one", "small", "large"))
    write_cube(generate_rain(frames=frames, size=(SIDE, SIDE), seed=1, wet_fraction=0.3), one)
    lengthen(one, small)
    size = lengthen(small, large)
    for seed in fault:
        peaks = [peak(launch, path, memory_disk / f"{path.stem}-{seed}") for path in (small, large)]
        small_, large_, archive = (f"{n / 1e6:.0f} MB" for n in (*peaks, size))
        fault.note(f"{frames * TIMES} frames: {small_}; {frames * TIMES**2} frames, {archive}: {large_}")
        if peaks[1] > GROWTH * peaks[0]:
            fault.lost(seed, f"{TIMES} times the archive took {peaks[1] / 1e6:.0f} instead of {peaks[0] / 1e6:.0f} MB")
        if peaks[1] > size:
            fault.lost(seed, f"{peaks[1] / 1e6:.0f} MB, an archive of {size / 1e6:.0f} MB would fit")


def peak(launch, path: Path, said: Path) -> int:
    """Peak resident bytes of a training in a process of its own."""
    process = launch(FIT, path=str(path), said=str(said))
    process.join()
    assert process.exitcode == 0
    return 1024 * int(said.read_text())


def lengthen(source: Path, target: Path) -> int:
    """The same store with its frames `TIMES` times, one after the other; the bytes of its values in memory."""
    shutil.copytree(source, target)
    group: Any = zarr.open_group(target, mode="r+")
    rain, time = group["rainfall_rate"], group["time"]
    frames, (first, second) = time.shape[0], time[:2]
    rain.resize((TIMES * frames, *rain.shape[1:]))
    time.resize(TIMES * frames)
    time[:] = first + (second - first) * np.arange(TIMES * frames)
    chunks = target / "rainfall_rate" / "c"
    for number in range(frames, TIMES * frames):
        shutil.copytree(chunks / str(number % frames), chunks / str(number), copy_function=os.link)
    return int(rain.nbytes)
