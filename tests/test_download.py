"""Downloads against a real HTTP server on loopback: resume, versions, checksums, refusals, and what is left behind."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cubecast.download import CHUNK, download
from cubecast.errors import InputError, OutputError, UsageError

BODY = np.random.default_rng(0).integers(0, 256, 4 * CHUNK + 1234, dtype=np.uint8).tobytes()
OTHER = BODY[::-1]
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """One file at any path; the attributes say how it behaves, `seen` which ranges were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.version: dict[str, str] = {"ETag": '"one"'}
        self.ranges = True
        self.trust_range = False
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.earlier = 0
        self.packed = False
        self.seen: list[str | None] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/rain.nc"


class Handler(BaseHTTPRequestHandler):
    """GET with Range and If-Range as RFC 9110 has them, and faults on demand."""

    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.seen.append(self.headers["Range"])
        assert self.headers["Accept-Encoding"] == "identity", "lengths and offsets are those of the file"
        status = server.statuses.pop(0) if server.statuses else 200
        if status != 200:
            self.send_error(status)
            return
        if server.packed:
            body = gzip.compress(server.body)
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        start = 0
        if server.ranges and self.headers["Range"]:
            same = server.trust_range or self.headers["If-Range"] in server.version.values()
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if same else 0
        start = max(start - server.earlier, 0)
        if start >= len(server.body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(server.body) - start))
        for name, value in server.version.items():
            self.send_header(name, value)
        self.end_headers()
        stop = server.cuts.pop(0) if server.cuts else len(server.body)
        self.wfile.write(server.body[start:stop])
        server.sent += stop - start

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server: Server, path: Path, **options: Any) -> Path:
    return download(server.url, path, **{"wait": 0.001, "timeout": 5.0, **options})


def test_a_file_arrives_whole_with_its_folders_and_nothing_beside_it(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "a" / "b" / "rain.nc", sha256=SHA256.upper())
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == ["rain.nc"]


def test_a_file_that_is_there_is_not_fetched_again_unless_its_checksum_is_wrong(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "rain.nc"
    path.write_bytes(OTHER)
    assert get(server, path).read_bytes() == OTHER
    assert server.seen == []
    assert get(server, path, sha256=SHA256).read_bytes() == BODY
    get(server, path, sha256=SHA256)
    assert server.seen == [None]


@pytest.mark.parametrize("version", [{"ETag": '"one"'}, {"Last-Modified": "Sun, 22 Nov 2026 14:26:00 GMT"}])
def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, version: dict[str, str]
) -> None:
    server.version, server.cuts = version, [2 * CHUNK, 3 * CHUNK]
    assert get(server, tmp_path / "rain.nc", sha256=SHA256).read_bytes() == BODY
    assert server.seen == [None, f"bytes={2 * CHUNK}-", f"bytes={3 * CHUNK}-"]
    assert server.sent == len(BODY)


def test_the_next_call_goes_on_where_an_interrupted_one_stopped(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "rain.nc"

    def stop_at_third(pieces: Any, description: str, total: int | None) -> Any:
        assert (description, total) == ("rain.nc", 5)
        for count, piece in enumerate(pieces):
            if count == 2:
                raise KeyboardInterrupt
            yield piece

    with pytest.raises(KeyboardInterrupt):
        get(server, path, progress=stop_at_third)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rain.nc.part", "rain.nc.part.version"]
    assert get(server, path).read_bytes() == BODY
    assert server.seen == [None, f"bytes={2 * CHUNK}-"]
    assert [p.name for p in tmp_path.iterdir()] == ["rain.nc"]


@pytest.mark.parametrize("trust_range", [False, True], ids=["if-range kept", "if-range ignored"])
def test_a_file_that_changed_between_two_tries_is_fetched_from_its_start(
    server: Server, tmp_path: Path, trust_range: bool
) -> None:
    path, server.cuts = tmp_path / "rain.nc", [2 * CHUNK]
    with pytest.raises(InputError, match=r"found a transfer that broke off \(131,072 bytes are here"):
        get(server, path, tries=1)
    server.body, server.version, server.trust_range = OTHER, {"ETag": '"two"'}, trust_range
    assert get(server, path).read_bytes() == OTHER


def test_a_file_that_became_shorter_than_what_is_here_is_fetched_from_its_start(server: Server, tmp_path: Path) -> None:
    path, server.cuts = tmp_path / "rain.nc", [2 * CHUNK]
    with pytest.raises(InputError):
        get(server, path, tries=1)
    server.body, server.trust_range = OTHER[: CHUNK // 2], True
    assert get(server, path).read_bytes() == OTHER[: CHUNK // 2]


def test_a_range_that_begins_elsewhere_is_not_joined(server: Server, tmp_path: Path) -> None:
    server.cuts, server.earlier = [2 * CHUNK], 100
    assert get(server, tmp_path / "rain.nc").read_bytes() == BODY


@pytest.mark.parametrize("version", [{}, {"ETag": 'W/"one"'}], ids=["none", "weak"])
def test_bytes_of_no_certain_version_are_never_joined(server: Server, tmp_path: Path, version: dict[str, str]) -> None:
    server.version, server.cuts = version, [2 * CHUNK]
    assert get(server, tmp_path / "rain.nc").read_bytes() == BODY
    assert server.seen == [None, None]


def test_bytes_of_another_address_are_not_joined(server: Server, tmp_path: Path) -> None:
    server.cuts = [2 * CHUNK]
    with pytest.raises(InputError):
        download(server.url + "?day=1", tmp_path / "rain.nc", tries=1)
    assert get(server, tmp_path / "rain.nc").read_bytes() == BODY
    assert server.seen == [None, None]


def test_another_writer_of_the_same_name_is_noticed(server: Server, tmp_path: Path) -> None:
    others = [b"other"]

    def write_between(pieces: Any, description: str, total: int | None) -> Any:
        for piece in pieces:
            yield piece
            if others:
                with (tmp_path / "rain.nc.part").open("ab") as file:
                    file.write(others.pop())

    assert get(server, tmp_path / "rain.nc", progress=write_between).read_bytes() == BODY
    assert server.seen == [None, None]


def test_a_server_without_ranges_sends_the_whole_file_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [2 * CHUNK]
    assert get(server, tmp_path / "rain.nc", sha256=SHA256).read_bytes() == BODY
    assert server.seen == [None, f"bytes={2 * CHUNK}-"]


def test_a_server_that_compresses_all_the_same(server: Server, tmp_path: Path) -> None:
    server.packed = True
    assert get(server, tmp_path / "rain.nc", sha256=SHA256).read_bytes() == BODY
    assert len(server.seen) == 1


def test_a_wrong_checksum_keeps_nothing(server: Server, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(InputError, match=f"found SHA-256 {SHA256}; allowed: {wrong}"):
        get(server, tmp_path / "rain.nc", sha256=wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(InputError, match=f"rain.nc: found {status} "):
        get(server, tmp_path / "rain.nc")
    assert len(server.seen) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status, status]
    assert get(server, tmp_path / "rain.nc").read_bytes() == BODY
    assert len(server.seen) == 3


def test_tries_without_progress_are_bounded_and_progress_starts_the_count_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 503, 200, 503, 503, 503]
    server.cuts = [CHUNK]
    with pytest.raises(InputError, match=r"found 503 .* \(65,536 bytes are here; tries without progress: 3\)"):
        get(server, tmp_path / "rain.nc", tries=3)
    assert len(server.seen) == 5


def test_an_unreachable_server_is_one_clear_line(server: Server, tmp_path: Path) -> None:
    server.server_close()
    with pytest.raises(
        InputError, match=r"^cannot download http://127\.0\.0\.1:\d+/rain.nc: found Failed to .* refused \(0 bytes"
    ):
        get(server, tmp_path / "rain.nc", tries=2)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_falls_silent_is_left(server: Server, tmp_path: Path) -> None:
    silent = threading.Event()

    class Silent(Handler):
        def do_GET(self) -> None:
            silent.wait(5)

    server.RequestHandlerClass = Silent
    with pytest.raises(InputError, match="timed out"):
        get(server, tmp_path / "rain.nc", tries=1, timeout=0.1)
    silent.set()


@pytest.mark.parametrize("url", ["rain.nc", "ftp://host/rain.nc", "http://", "http://[bad/rain.nc"])
def test_an_address_that_is_none_is_a_usage_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="allowed: an http"):
        download(url, tmp_path / "rain.nc")
    assert list(tmp_path.iterdir()) == []


def test_a_checksum_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        download("http://127.0.0.1/rain.nc", tmp_path / "rain.nc", sha256="abc")


def test_a_place_that_cannot_be_written_is_an_output_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        get(server, tmp_path / "file" / "rain.nc")
    with pytest.raises(OutputError, match="a folder of that name"):
        get(server, tmp_path / "folder")
    assert server.seen == []
    (tmp_path / "rain.nc.part").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        get(server, tmp_path / "rain.nc")
    assert not (tmp_path / "rain.nc").exists()
