"""Time and memory of opening many small files (one frame each) as one cube.

Each number of files is opened in a process of its own; prints files, seconds (also of CPU), and peak memory above
that of the imports. Run: python benchmarks/open_many.py 1000 4000
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import netCDF4
import numpy as np


def write(folder: Path, count: int, size: int) -> None:
    """Frames of rain, packed in int16 and compressed, 5 minutes apart."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 50, (size, size)).astype("i2")
    for i in range(count):
        with netCDF4.Dataset(folder / f"{i:06d}.nc", "w") as file:
            file.createDimension("y", size)
            file.createDimension("x", size)
            when = file.createVariable("valid_time", "i8", ())
            when.setncatts({"standard_name": "time", "units": "minutes since 2020-01-01"})
            when[...] = 5 * i
            for name in "yx":
                axis = file.createVariable(name, "f8", (name,))
                axis.setncatts({"standard_name": f"projection_{name}_coordinate", "units": "m"})
                axis[:] = np.arange(size) * 1000.0
            rain = file.createVariable("rain", "i2", ("y", "x"), zlib=True, fill_value=-1)
            rain.setncatts({"standard_name": "rainfall_rate", "units": "mm h-1", "scale_factor": 0.1})
            rain.set_auto_maskandscale(False)
            rain[:] = values


def measure(folder: str) -> None:
    """Open all files of a folder; print seconds and megabytes."""
    from cubecast.sources import open_cube

    files = sorted(Path(folder).glob("*.nc"))
    open_cube(files[:3])  # imports and first-use costs are not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, start_cpu = time.perf_counter(), time.process_time()
    cube = open_cube(files)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    first = time.perf_counter()
    cube[len(cube) // 2 :][:18].compute()
    window = time.perf_counter() - first
    print(
        f"{len(files):7d} files {seconds:8.2f} s ({cpu:.2f} s CPU, {1e3 * cpu / len(files):.2f} ms a file)"
        f" {peak:8.1f} MB; 18 frames in {window:.2f} s"
    )


def main() -> None:
    """Measure every number of files that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=[1000, 4000])
    parser.add_argument("--size", type=int, default=64, help="side of the frames")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        measure(options.folder)
        return
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), count, options.size)
            subprocess.run([sys.executable, __file__, "--folder", folder], check=True)


if __name__ == "__main__":
    main()
