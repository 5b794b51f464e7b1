"""Markdown tables."""

from collections.abc import Iterable


def head(names: Iterable[object]) -> str:
    """Two lines: what the columns are called, and what Markdown wants below."""
    names = list(names)
    return row(names) + "\n" + row(["---"] * len(names))


def row(cells: Iterable[object]) -> str:
    """One line; numbers to four digits, nothing where one is not known."""
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if value == value else ""
