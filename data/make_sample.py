"""Make sample_rain.nc: eight hours of synthetic rain, rounded to 0.1 mm/h so that the file stays small.

Usage: python data/make_sample.py [FILE]
"""

import sys
from pathlib import Path

import cubecast


def make_sample(path: Path) -> None:
    """Write the sample cube to ``path``."""
    cube = cubecast.generate_rain(frames=96, size=(96, 96), step_minutes=5, grid_km=2.0, seed=2)
    cubecast.write_cube(cube.round(1).assign_attrs(cube.attrs), path)


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sample_rain.nc"))
