"""The output folder: one watcher, nothing half-written, what is there is not made again, and what is old goes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cubecast.errors import OutputError
from cubecast.product import file_stem
from cubecast.watch import Outbox
from cubecast.watch.outbox import stem_time
from cubecast.write import read_forecast

HOLD = """
import sys, time
from pathlib import Path
from cubecast.watch import Outbox
with Outbox(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(600)
"""


def test_names_sort_by_time_and_lead_back_to_it():
    times = np.datetime64("2020-12-31T23:50:00", "ns") + np.arange(9) * np.timedelta64(307, "s")
    names = [file_stem(t) for t in times]
    assert names == sorted(names)
    assert [stem_time(n) for n in names] == list(times)
    assert stem_time("nowcast_20201399T000000") is None
    assert stem_time("other_20200601T000000") is None


def test_no_two_references_have_one_name():
    parts = np.datetime64("2020-01-01T00:00:00.25"), np.datetime64("2020-01-01T00:00:00.75")
    assert [file_stem(one) for one in parts] == ["nowcast_20200101T000000.250", "nowcast_20200101T000000.750"]
    assert [file_stem(one) for one in (1234567.0, 1234567.5, 12)] == [
        "nowcast_1234567",
        "nowcast_1234567.5",
        "nowcast_12",
    ]


def test_a_second_watcher_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    try:
        with pytest.raises(OutputError, match=f"process {held.pid}"), Outbox(tmp_path).held():
            pass
    finally:
        held.kill()
        held.wait()
        held.stdout.close()
    with Outbox(tmp_path).held():
        pass


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(site):
    (site.out / "maps").mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(done.stdout)
    (site.out / f".cubecast-tmp-{dead}-abcd.nc").write_text("half")
    (site.out / "maps" / f".cubecast-tmp-{dead}-dcba").mkdir()
    (site.out / "maps" / f".cubecast-tmp-{dead}-dcba" / "a.png").write_text("half")
    alive = site.out / f".cubecast-tmp-{os.getppid()}-abcd.nc"
    alive.write_text("being written")
    site.watch()
    assert list(site.out.rglob(".cubecast-tmp-*")) == [alive]


def test_a_restart_makes_nothing_again_and_goes_on(site):
    site.put(*range(5))
    site.settle(site.watch())
    before = {p.name: p.stat().st_mtime_ns for p in site.out.glob("nowcast_*.nc")}
    assert len(before) == 3
    site.put(5)
    watcher = site.watch()
    assert site.settle(watcher) == ["nowcast_20200601T002500.nc"]
    assert {n: (site.out / n).stat().st_mtime_ns for n in before} == before
    f = site.status()["forecasts"]
    assert (f["due"], f["made"], f["there"]) == (1, 1, 3)


def test_a_forecast_that_was_lost_behind_the_newest_is_made_at_the_next_start(site):
    site.put(*range(6))
    site.settle(site.watch())
    (site.out / "nowcast_20200601T002000.nc").unlink()
    assert site.settle(site.watch()) == ["nowcast_20200601T002000.nc"]
    assert os.readlink(site.out / "latest.nc") == "nowcast_20200601T002500.nc"


def test_latest_is_a_copy_where_links_are_not_allowed(site):
    def refuse(target: str, path: Path) -> None:
        raise OSError(errno.EPERM, "links are not allowed")

    site.put(0, 1, 2)
    watcher = site.watch(link=refuse)
    site.settle(watcher)
    latest = site.out / "latest.nc"
    assert not latest.is_symlink()
    assert latest.read_bytes() == (site.out / "nowcast_20200601T001000.nc").read_bytes()
    site.put(3)
    site.settle(watcher)
    assert read_forecast(latest).forecast_reference_time.values[0] == site.time(3)
    assert not [r for r in site.status()["recent"] if r["what"] == "problem"]


def test_latest_is_replaced_in_one_step(site):
    """A reader in a loop never finds it missing or half-written."""
    site.put(*range(12))
    watcher = site.watch()
    watcher.cycle()
    code = (
        "import sys, os, time\n"
        "seen = bad = 0\n"
        "end = time.time() + 120\n"
        "print('reading', flush=True)\n"
        "while not (seen > 10 and os.path.exists(sys.argv[2])) and time.time() < end:\n"
        "    if seen or os.path.lexists(sys.argv[1]):\n"
        "        try: bad += open(sys.argv[1], 'rb').read(4) != b'\\x89HDF'\n"
        "        except OSError: bad += 1\n"
        "        seen += 1\n"
        "print(seen, bad)\n"
    )
    stop = site.out / "stop"
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(site.out / "latest.nc"), str(stop)], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    watcher.cycle()
    stop.touch()
    out, _ = reader.communicate(timeout=180)
    seen, bad = map(int, out.split())
    assert seen > 10
    assert bad == 0


def test_retention_goes_by_reference_time_and_leaves_what_it_did_not_make(site):
    site.put(*range(8))
    site.settle(site.watch(keep=1.0))
    own = site.out / "nowcast_20200101T000000.nc"  # of somebody else, by the same name
    site.model.predict(site.cube.isel(time=slice(0, 3))).to_netcdf(own)
    text = site.out / "nowcast_19990101T000000.nc"
    text.write_text("a note")
    (site.out / "notes.txt").write_text("old")
    os.utime(site.out / "notes.txt", (0, 0))
    site.now = site.start + 86400 + 5 * 300 - 1  # frame 5 is one second too young
    site.watch(keep=1.0)
    kept = {p.name for p in site.out.iterdir() if not p.name.startswith(".")}
    young = {f"nowcast_20200601T00{m}00.nc" for m in (25, 30, 35)}
    assert kept == young | {"latest.nc", "status.json", text.name, own.name, "notes.txt"}


def test_the_newest_forecast_stays_however_old(site):
    site.put(0, 1, 2, 3)
    site.settle(site.watch())
    site.now += 100 * 86400
    site.watch(keep=1.0)
    assert site.made() == [3]
    assert read_forecast(site.out / "latest.nc").forecast_reference_time.values[0] == site.time(3)


def test_maps_are_whole_folders_that_go_with_their_forecast(site):
    site.put(0, 1, 2)
    watcher = site.watch(maps=True, keep=1.0)
    site.settle(watcher)
    folder = site.out / "maps" / "nowcast_20200601T001000"
    pictures = sorted(p.name for p in folder.glob("*.png"))
    assert len(pictures) == 3  # two leads and the panel
    assert os.readlink(site.out / "maps" / "latest") == folder.name
    (folder / "my notes.txt").write_text("keep")
    site.now = site.start + 86400 + 3 * 300
    site.put(3)
    again = site.watch(maps=True, keep=1.0)
    site.settle(again)
    assert [p.name for p in folder.iterdir()] == ["my notes.txt"]
    assert not (site.out / "nowcast_20200601T001000.nc").exists()
    assert (site.out / "maps" / "nowcast_20200601T001500").is_dir()


def test_maps_that_a_killed_run_did_not_draw_are_drawn_at_the_start(site):
    site.put(0, 1, 2)
    site.settle(site.watch())
    site.watch(maps=True)
    assert (site.out / "maps" / "nowcast_20200601T001000").is_dir()


def test_a_map_that_fails_does_not_cost_the_forecast(site):
    (site.out / "maps").parent.mkdir(exist_ok=True)
    (site.out / "maps").write_text("in the way")
    site.put(0, 1, 2)
    watcher = site.watch(maps=True)
    assert len(site.settle(watcher)) == 1
    assert any(r["what"] == "problem" and r["why"].startswith("maps: ") for r in site.status()["recent"])
    assert site.status()["forecasts"]["failed"] == 0


def test_the_status_is_a_heartbeat_that_is_always_whole(site):
    watcher = site.watch()
    assert site.status()["state"] == "starting"
    for n in range(3):
        watcher.cycle()
        assert site.status()["cycles"] == n + 1
        assert site.status()["time"] == f"2020-06-01T05:00:0{n}Z"
        site.now += 1
    assert site.status()["pid"] == os.getpid()
    assert site.status()["last_frame"] is None
    assert [p.name for p in site.out.iterdir()] == ["status.json"]
