"""Items made ahead by one thread, and the time that is spent waiting for them all the same."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """``items`` made by a thread up to ``depth`` ahead; its errors are raised here, and it ends with the reader.

    One thread, because HDF5 reads from one at a time, and no process, because a fork after dask or HDF5 has run hangs.
    """
    if depth == 0:
        yield from items
        return
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: tuple[Item] | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put((item,))
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="cubecast-batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        stop.set()
        thread.join()


class Waiting(Generic[Item]):
    """Items, and how many seconds were spent waiting for them."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items, self.seconds = items, 0.0
        self.start = self._last = time.monotonic()

    @property
    def share(self) -> float:
        """The waiting as a share of the time until the last item was asked for."""
        return self.seconds / max(self._last - self.start, 1e-9)

    def __iter__(self) -> Iterator[Item]:
        """The items."""
        return self

    def __next__(self) -> Item:
        """The next item."""
        start = time.monotonic()
        try:
            return next(self._items)
        finally:
            self._last = time.monotonic()
            self.seconds += self._last - start
