"""The report of a run: counts, and what failed with its reason, for programs to read."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

from cubecast.archive.histories import Archive
from cubecast.archive.targets import Target
from cubecast.archive.work import FAILED
from cubecast.atomic import atomic_path
from cubecast.errors import one_line

logger = logging.getLogger(__name__)

REPORT_SECONDS = 30.0
"""How often the report is written while the run goes on."""


class Report:
    """What became of the forecasts of a run, as a context; its file is replaced as a whole, now and then.

    Args:
        target: where the forecasts go, and the report.
        archive: what was read.
        wanted: how many forecasts.
        about: the model and the options.
    """

    def __init__(self, target: Target, archive: Archive, *, wanted: int, about: dict[str, Any]) -> None:
        self.target = target
        self.values: dict[str, Any] = {
            "cubecast": version("cubecast"),
            "state": "running",
            "started": _now(),
            "ended": None,
            "problem": None,
            "output": str(target.path),
            "report": str(target.report),
            "options": about,
            "forecasts": {"wanted": wanted, "written": 0, "there": 0, FAILED: 0},
            "failed": [],
            "unreadable_files": [{"file": path, "reason": reason} for path, reason in archive.refused.items()],
        }
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self.values |= {"state": "ended" if error is None else "stopped", "ended": _now()}
        self.values["problem"] = None if error is None else one_line(error)
        self._write()

    def add(self, reference: Any, state: str, reason: str) -> None:
        """Take note of one forecast."""
        self.values["forecasts"][state] += 1
        if state == FAILED:
            name = self.target.name(reference)
            self.values["failed"].append({"reference": str(reference), "forecast": name, "reason": reason})
            logger.warning("%s failed: %s", name, reason)
        if time.monotonic() - self._written > REPORT_SECONDS:
            self._write()

    def _write(self) -> None:
        with atomic_path(self.target.report) as temporary:
            temporary.write_text(json.dumps(self.values, indent=1, default=str), encoding="utf-8")
        self._written = time.monotonic()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
