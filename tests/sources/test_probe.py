"""The helper process that reads foreign files first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import netCDF4
import pytest

from cubecast.errors import InputError
from cubecast.sources.probe import Probe
from cubecast.write import write_cube

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")


@pytest.fixture
def probe():
    made = Probe(seconds=4, memory=2**30)
    yield made
    made.close()


@pytest.fixture
def good(rain, tmp_path) -> Path:
    write_cube(rain(6), tmp_path / "good.nc")
    return tmp_path / "good.nc"


def test_good_and_damaged_files_go_through_one_helper(probe, good, tmp_path):
    probe.check(good, variable="rainfall_rate", frames=6)
    helper = probe._helper
    (tmp_path / "half.nc").write_bytes(good.read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"cannot read .*half\.nc.*get it again"):
        probe.check(tmp_path / "half.nc")
    with pytest.raises(InputError, match="'snow'"):
        probe.check(good, variable="snow")
    probe.check(good)
    assert probe._helper is helper


def test_a_helper_that_crashes_costs_the_file_alone(probe, good, tmp_path):
    """A pipe keeps the helper reading until it is killed, as a crash would kill it."""
    probe.check(good)
    os.mkfifo(tmp_path / "pipe.nc")
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -SEGV {probe._helper.pid}"])
    with pytest.raises(InputError, match=r"pipe\.nc: found a crash of the library that reads it \(SIGSEGV\)"):
        probe.check(tmp_path / "pipe.nc")
    killer.wait()
    probe.check(good)


def test_a_file_that_takes_too_long_is_refused(probe, good, tmp_path):
    os.mkfifo(tmp_path / "pipe.nc")
    with pytest.raises(InputError, match="more than 4 s"):
        probe.check(tmp_path / "pipe.nc")
    probe.check(good)


def test_a_file_that_takes_too_much_memory_is_refused(probe, good, tmp_path):
    path = tmp_path / "large.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("time", 2), ("y", 20_000), ("x", 20_000)):
            file.createDimension(name, size)
        time_ = file.createVariable("time", "i4", ("time",))
        time_.setncatts({"units": "minutes since 2020-01-01", "standard_name": "time"})
        time_[:] = [0, 5]
        rate = file.createVariable("rainfall_rate", "f4", ("time", "y", "x"), zlib=True, chunksizes=(1, 20_000, 20_000))
        rate.units = "mm h-1"
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"cannot read .*large\.nc"):
        probe.check(path)
    probe.check(good)


def test_the_helper_ends_with_its_program(good):
    code = "import sys; from cubecast.sources.probe import SHARED; SHARED.check(sys.argv[1]); "
    code += "print(SHARED._helper.pid, flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(good)], stdout=subprocess.PIPE, text=True) as program:
        helper = int(program.stdout.readline())
        os.kill(helper, signal.SIGTERM)  # the helper leaves signals to its program
        time.sleep(0.2)
        os.kill(helper, 0)
        program.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{helper}/cmdline").exists() and Path(f"/proc/{helper}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_relative_path_means_the_folder_of_now(probe, rain, tmp_path, monkeypatch):
    write_cube(rain(3), tmp_path / "here.nc")
    probe.check(tmp_path / "here.nc")
    monkeypatch.chdir(tmp_path)
    probe.check("here.nc")
