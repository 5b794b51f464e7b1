"""Watch a folder of frames and forecast after each new one, for years: `cubecast watch`, see docs/operations.md."""

from cubecast.watch.outbox import Outbox
from cubecast.watch.rules import Rules
from cubecast.watch.watcher import Watcher

__all__ = ["Outbox", "Rules", "Watcher"]
