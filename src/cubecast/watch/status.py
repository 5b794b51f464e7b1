"""The status file: what a monitor reads. docs/operations.md says what each field means."""

from __future__ import annotations

import os
from collections import deque
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from cubecast.watch.intake import Intake
from cubecast.watch.ledger import FAILED, MADE, SKIPPED, THERE, Ledger
from cubecast.watch.making import Maker
from cubecast.watch.rules import Rules
from cubecast.watch.series import seconds_of, shown

RECENT = 20
"""How many lines the status remembers."""


class Report:
    """What happened lately, and everything together as JSON values."""

    def __init__(self, rules: Rules, started: float) -> None:
        self.rules, self.started, self.cycles = rules, started, 0
        self.problem: str | None = None
        """Why the last look at the folder failed."""
        self._recent: deque[dict[str, str]] = deque(maxlen=RECENT)

    def note(self, now: float, what: str, line: str) -> None:
        """Remember a line."""
        self._recent.append({"time": iso(now), "what": what, "why": line})

    def collect(self, now: float, intake: Intake, maker: Maker) -> None:
        """Remember what others noted, and let them forget it."""
        for what, lines in (("refused", intake.notes), ("problem", maker.problems)):
            for line in lines:
                self.note(now, what, line)
            lines.clear()

    def values(self, state: str, now: float, ledger: Ledger, intake: Intake, maker: Maker) -> dict[str, Any]:
        """The content of the status file."""
        seen = intake.folder.seen
        return {
            "state": state,
            "time": iso(now),
            "pid": os.getpid(),
            "version": version("cubecast"),
            "started": iso(self.started),
            "cycles": self.cycles,
            "folder": str(intake.folder.path),
            "problem": self.problem,
            "last_frame": self._last_frame(now, intake),
            "last_forecast": _last_forecast(maker),
            "forecasts": {
                "due": ledger.due,
                "made": ledger.total(MADE),
                "skipped": ledger.total(SKIPPED),
                "failed": ledger.total(FAILED),
                "waiting": ledger.waiting,
                "there": ledger.total(THERE),
                "skipped_reasons": ledger.reasons(SKIPPED),
                "failed_reasons": ledger.reasons(FAILED),
                "deadlines_met": maker.met,
                "deadlines_missed": maker.missed,
            },
            "files": {
                "seen": len(seen),
                "moving": intake.folder.moving(),
                "opened": intake.opened,
                "frames_taken": intake.taken,
                "refused": dict(sorted(intake.refused.items())),
            },
            "rules": {
                k: None if v == float("inf") else v
                for k, v in ((k, getattr(self.rules, k)) for k in self.rules.__dataclass_fields__)
            },
            "recent": list(self._recent),
        }

    def _last_frame(self, now: float, intake: Intake) -> dict[str, Any] | None:
        newest = intake.newest
        if intake.series is None or newest is None:
            return None
        frame = intake.series.frames[newest]
        age = now - seconds_of(frame.time)
        return {
            "time": shown(frame.time),
            "file": frame.name,
            "arrival": iso(frame.arrival),
            "age_seconds": round(age, 3),
            "stale": bool(age > self.rules.stale),
        }


def _last_forecast(maker: Maker) -> dict[str, Any] | None:
    last = maker.last
    if last is None:
        return None
    return {
        "reference_time": shown(last.reference),
        "path": str(last.path),
        "made": iso(last.at),
        "seconds": round(last.seconds, 3),
        "newest_frame_age_seconds": round(last.age, 3),
        "deadline_met": last.met,
        "filled_frames": [shown(t) for t in last.filled],
    }


def iso(moment: float) -> str:
    """Seconds since 1970 as ISO 8601."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
