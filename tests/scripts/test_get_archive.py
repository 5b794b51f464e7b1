"""The script for public archives, against a server on loopback."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cubecast import archives
from cubecast.archives import Archive


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An archive of daily files on loopback that lacks its second day."""
    folder = tmp_path / "server"
    folder.mkdir()
    for day in (1, 3):
        (folder / f"sst_2024010{day}.nc").write_text(f"day {day}")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        url = f"http://127.0.0.1:{server.server_port}/sst_%Y%m%d.nc"
        here = Archive(title="test", owner="test", licence="none", format="text", url=url, every="D", use="nothing")
        monkeypatch.setitem(archives.ARCHIVES, "here", here)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield "here"
        server.shutdown()
        thread.join()


def test_what_is_there_is_fetched_and_what_is_not_is_listed(
    script: ModuleType, archive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        script.main(archive, "2024-01-01", "2024-01-03", out)
    assert end.value.code == 1
    assert {p.name: p.read_text() for p in out.iterdir()} == {"sst_20240101.nc": "day 1", "sst_20240103.nc": "day 3"}
    printed = capsys.readouterr()
    assert printed.out == f"2 of 3 files are in {out}\n"
    assert "sst_20240102.nc: found 404" in printed.err


def test_a_period_that_is_whole_ends_well(
    script: ModuleType, archive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(archive, "2024-01-03", "2024-01-03", tmp_path / "out")
    assert capsys.readouterr().err == ""


def test_a_wrong_request_has_the_exit_code_of_the_command(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        script.main("nowhere", None, None, tmp_path / "out")
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("get_archive: error: archive: found 'nowhere'; allowed: ersst_v5, ")


def test_the_list_names_every_archive_its_owner_and_its_licence(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(show=True)
    printed = capsys.readouterr().out
    for name, entry in archives.ARCHIVES.items():
        assert name in printed
        assert entry.owner in printed
        assert entry.licence in printed
