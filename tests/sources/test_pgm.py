"""FMI's PGM images."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cubecast.cube import check_cube, cube_crs
from cubecast.errors import InputError
from cubecast.sources import open_cube

HEADER = """P5
# obstime 2016092814{minute:02d}
# param CorrectedReflectivity
# projection radar {{
# type stereographic
# centrallongitude 25
# centrallatitude 90
# truelatitude 60
# bottomleft 18.600000 57.930000
# topright 34.903000 69.005000
# }}
3 2
255
"""
PIXELS = np.array([[0, 64, 255], [65, 164, 254]], "u1")


def write(path: Path, minute: int, drop: str = "nothing") -> Path:
    header = "".join(line + "\n" for line in HEADER.format(minute=minute).splitlines() if drop not in line)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header.encode() + PIXELS.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".pgm", ".pgm.gz"])
def test_grey_values_are_reflectivity(tmp_path: Path, suffix: str) -> None:
    cube = check_cube(open_cube([write(tmp_path / f"{m}{suffix}", m) for m in (45, 50, 55)]))
    assert (cube.name, cube.attrs["units"], cube.dims) == ("DBZH", "dBZ", ("time", "y", "x"))
    np.testing.assert_array_equal(cube.values[0], np.array([[-32, 0, np.nan], [0.5, 50, 95]], "f4"))
    assert str(cube.time.values[2]).startswith("2016-09-28T14:55")
    # the lower left corner of FMI's grid is the origin of its coordinates
    np.testing.assert_allclose(cube.x.values[0] - (cube.x.values[1] - cube.x.values[0]) / 2, 0, atol=1)
    assert cube.y.values[0] > cube.y.values[1] > 0
    assert cube_crs(cube).coordinate_operation.method_name.startswith("Polar Stereographic")


def test_broken_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.pgm is no FMI composite.*obstime"):
        open_cube(write(tmp_path / "a.pgm", 5, drop="obstime"))
    path = write(tmp_path / "b.pgm.gz", 5)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"cannot read .*b\.pgm\.gz"):
        open_cube(path)
    path = write(tmp_path / "c.pgm", 5)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"cannot read .*c\.pgm"):
        open_cube(path)
    with pytest.raises(InputError, match=r"no variable 'rain' in .*d\.pgm: allowed: DBZH"):
        open_cube(write(tmp_path / "d.pgm", 5), variable="rain")
