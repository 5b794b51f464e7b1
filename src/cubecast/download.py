"""Downloads that survive networks: resumed where they broke off, checked, and there whole or not at all.

The bytes go into ``NAME.part`` beside the final name. ``NAME.part.version`` holds the URL and the version (ETag or
Last-Modified) that they belong to, so that a later try, in this run or in another, goes on only with the same file.
A server that names no version is asked for the whole file again.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from cubecast.atomic import atomic_path, make_folder
from cubecast.errors import InputError, OutputError, UsageError
from cubecast.progress import Progress, follow

CHUNK = 1 << 16
"""Bytes written at a time; at most so many are lost when a transfer breaks off."""

LONGEST_WAIT = 60.0
"""Seconds: the wait between two tries stops doubling here."""

_CONNECT = 10.0
_NOT_NOW = {408, 425, 429}
_WRONG_URL = (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema)


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    tries: int = 5,
    wait: float = 1.0,
    timeout: float = 60.0,
    progress: Progress | None = None,
) -> Path:
    """Fetch ``url`` into the file ``path``, unless it is there already; folders are made as needed.

    A transfer that breaks off is resumed, by this call and, after Ctrl-C or a crash, by the next one.

    Args:
        url: http:// or https:// address.
        path: the final name; it appears when the file is whole and its checksum right.
        sha256: the checksum of the file in hexadecimal. A file that is there with another checksum is fetched again;
            without a checksum a file that is there is taken as it is.
        tries: how often in a row a try may bring nothing new before it is given up.
        wait: seconds before the second try, doubled before each further one.
        timeout: seconds without a byte after which a try has failed.
        progress: shows a bar of the pieces of 64 KiB.

    Returns:
        ``path``.

    Raises:
        UsageError: not an http(s) address, or not a SHA-256.
        InputError: the server refuses or cannot be reached, or the checksum is another one.
        OutputError: the file cannot be written.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UsageError("sha256", found=repr(sha256), allowed="64 hexadecimal digits")
    target = Path(os.path.realpath(path))
    if _is_there(target, sha256):
        return Path(path)
    make_folder(target.parent)
    with atomic_path(target) as temporary:
        part = _Part(url, target.with_name(target.name + ".part"), target.with_name(target.name + ".part.version"))
        _fetch(part, tries=tries, wait=wait, timeout=timeout, progress=progress)
        _check(part, sha256)
        part.file.replace(temporary)
        part.drop()
    return Path(path)


@dataclass(frozen=True)
class _Part:
    """The bytes of ``url`` that are here so far, and the version of the file that they belong to."""

    url: str
    file: Path
    note: Path

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    @property
    def version(self) -> str | None:
        """The ETag or date that the server gave for these bytes; None: there are none to go on with."""
        if not self.size or not self.note.is_file():
            return None
        url, _, version = self.note.read_text(encoding="utf-8", errors="replace").partition("\n")
        return version if version and url == self.url else None

    def begin(self, version: str | None) -> None:
        self.drop()
        self.note.write_text(f"{self.url}\n{version or ''}", encoding="utf-8")
        self.file.touch()

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _is_there(target: Path, sha256: str | None) -> bool:
    try:
        return target.is_file() and (sha256 is None or _digest(target) == sha256.lower())
    except OSError as error:
        raise OutputError(f"cannot read {target}, which is there already", found=error.strerror) from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(part: _Part, sha256: str | None) -> None:
    if sha256 is None or (found := _digest(part.file)) == sha256.lower():
        return
    part.drop()
    raise InputError(
        f"checksum of {part.url}",
        found=f"SHA-256 {found}",
        allowed=sha256.lower(),
        remedy="the file was damaged on the way or has changed at its source; nothing was kept",
    )


def _fetch(part: _Part, *, tries: int, wait: float, timeout: float, progress: Progress | None) -> None:
    """Try until the part is whole; a try that brought new bytes makes the count of failures start again."""
    failures, most = 0, part.size
    while True:
        try:
            return _try(part, timeout, progress)
        except _WRONG_URL as error:
            raise UsageError("url", found=f"{part.url!r} ({error})", allowed="an http:// or https:// address") from None
        except requests.RequestException as error:
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures >= tries:
                raise InputError(
                    f"cannot download {part.url}",
                    found=f"{_reason(error)} ({part.size:,} bytes are here; tries without progress: {failures})",
                    remedy="check the address and the network; the same call goes on where this one stopped",
                ) from None
        time.sleep(min(wait * 2 ** (failures - 1), LONGEST_WAIT))


def _try(part: _Part, timeout: float, progress: Progress | None) -> None:
    """One request for what is missing; `requests.RequestException` when it should be tried again."""
    # Compressed transfer would make lengths and offsets those of other bytes than the file's.
    headers = {"Accept-Encoding": "identity"}
    if part.version is not None:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.version}
    with requests.get(part.url, headers=headers, stream=True, timeout=(_CONNECT, timeout)) as response:
        start = _start(part, response)
        if start == 0:
            part.begin(_version(response))
        length = response.headers.get("Content-Length", "")
        # What a server compresses all the same is as long as it is once it is unpacked.
        plain = response.headers.get("Content-Encoding", "identity") == "identity"
        rest = int(length) if length.isdigit() and plain else None
        pieces = None if rest is None else -(-rest // CHUNK)
        with part.file.open("ab") as file:
            name = part.file.name.removesuffix(".part")
            for piece in follow(response.iter_content(CHUNK), name, pieces, progress):
                file.write(piece)
    if rest is not None and part.size != start + rest:
        # Another process writes to the same name.
        part.drop()
        raise requests.ConnectionError(f"{part.size:,} bytes where {start + rest:,} were written")


def _start(part: _Part, response: requests.Response) -> int:
    """The offset of the first byte of the response; a status that cannot be used is an error."""
    if response.status_code == 200:
        return 0
    reason = f"{response.status_code} {response.reason}"
    if response.status_code == 206:
        first = re.match(rf"bytes {part.size}-", response.headers.get("Content-Range", ""))
        if first and _version(response) in (None, part.version):
            return part.size
        reason = "another version of the file"
    if response.status_code in (206, 416):
        # The bytes that are here are of no use with what the server has now.
        part.drop()
        raise requests.HTTPError(reason)
    if response.status_code in _NOT_NOW or response.status_code >= 500:
        raise requests.HTTPError(reason)
    raise InputError(f"cannot download {part.url}", found=reason, remedy="check the address")


def _reason(error: requests.RequestException) -> str:
    """What went wrong, without the names of the classes that noticed it."""
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "a transfer that broke off"
    cause = error.args[0] if error.args else error
    return str(getattr(cause, "reason", cause)).rpartition("): ")[2]


def _version(response: requests.Response) -> str | None:
    """What names this very version of the file: a strong ETag, or the date of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")
