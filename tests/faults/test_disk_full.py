"""A disk that is full at some point of a writing: a small one in memory, mounted where only the test sees it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cubecast.baselines import persistence
from cubecast.write import write_forecast

# Fills the disk up to some bytes, writes a forecast, makes room and writes it again; a line of JSON for each point.
WRITER = """
import json, sys
from pathlib import Path
from cubecast.errors import CubecastError
from cubecast.write import read_forecast, write_forecast
disk, suffix, free = Path(sys.argv[1]), sys.argv[3], [int(n) for n in sys.argv[4:]]
forecast, ballast, earlier, path = read_forecast(sys.argv[2]).load(), disk / "ballast", disk / "earlier.nc", None
def whole(path):
    return read_forecast(path).load().equals(forecast)
write_forecast(forecast, earlier)
def room():
    ballast.unlink(missing_ok=True)
    for old in disk.glob("forecast*"):
        __import__("shutil").rmtree(old) if old.is_dir() else old.unlink()
for number, left in enumerate(free):
    room()
    path, said = disk / f"forecast{number}{suffix}", {"left": left}
    with open(ballast, "wb", buffering=0) as file:
        import shutil
        file.write(bytes(max(0, shutil.disk_usage(disk).free - left)))
    try:
        write_forecast(forecast, path)
        said["written"] = whole(path)
    except CubecastError as error:
        said["code"], said["error"] = error.exit_code, str(error)
    except BaseException as error:
        said["code"], said["error"] = None, repr(error)
    said["there"] = path.exists()
    said["rest"] = sorted(p.name for p in disk.iterdir() if p.name.startswith(".cubecast"))
    said["earlier"] = whole(earlier)
    room()
    write_forecast(forecast, path)
    said["again"] = whole(path)
    print(json.dumps(said), flush=True)
"""
MEGABYTES = 4


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_disk_full(suffix, tally, rain, tmp_path):
    fault = tally(f"disk full while a {suffix[1:]} is written", short=10, full=50)
    disk, rng = tmp_path / "disk", np.random.default_rng(0)
    disk.mkdir()
    forecast = persistence(rain(6, size=(64, 64)), reference=rain(6).time.values[[3, 5]], horizon=6)
    noise = rng.random(forecast.rainfall_rate.shape, dtype=np.float32)  # cannot be compressed
    write_forecast(forecast.assign(rainfall_rate=forecast.rainfall_rate * 0 + noise), tmp_path / "forecast.nc")
    size = (tmp_path / "forecast.nc").stat().st_size
    free = [str(int(size * 1.2 * number / fault.tries)) for number in fault]
    mount = f'mount -t tmpfs -o size={MEGABYTES}m none "$0" && exec "$@"'
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(disk)]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("no file system may be mounted here, not even in a namespace of one's own")
    command = [*inside, sys.executable, "-c", WRITER, str(disk), str(tmp_path / "forecast.nc"), suffix, *free]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    told = [json.loads(line) for line in run.stdout.splitlines()]
    for seed, said in enumerate(told):
        for complaint in complaints(said, disk / f"forecast{seed}{suffix}"):
            fault.lost(seed, f"{said['left']} bytes left: {complaint}")
    for seed in range(len(told), fault.tries):
        fault.lost(seed, f"the writer ended with {run.returncode}: {run.stderr[-300:]}")
    refused = sum("error" in said for said in told)
    fault.note(f"{refused} of {len(told)} forecasts did not fit; a whole one has {size} bytes")
    assert refused > fault.tries / 2, "the disk was not full"


def complaints(said: dict, path) -> list[str]:
    """What is not as it must be."""
    out = [] if said["earlier"] and said["again"] else ["the earlier file, or the next writing, is not whole"]
    if "error" in said:
        line = said["error"]
        if said["code"] != 4 or str(path) not in line or "bytes free" not in line or "\n" in line:
            out.append(line)
        if said["there"] or said["rest"]:
            out.append(f"left behind: {said['there']}, {said['rest']}")
    elif not said["written"]:
        out.append("written, and not whole")
    return out
