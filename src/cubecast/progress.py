"""How long work reports itself: a callable that the library wraps its loops in, silent when None."""

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[Iterable[Any], str, int | None], Iterable[Any]]
"""``progress(iterable, description, total)`` yields the items and shows a bar; the command line passes rich's."""


def follow(items: Iterable[Any], description: str, total: int | None, progress: Progress | None) -> Iterable[Any]:
    """``items`` under a progress bar, or as they are when ``progress`` is None."""
    return items if progress is None else progress(items, description, total)
