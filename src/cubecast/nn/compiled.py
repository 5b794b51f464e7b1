"""Formulas compiled into kernels, and what to do where there is no compiler."""

from __future__ import annotations

import inspect
import logging
import types
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, final

import torch

log = logging.getLogger(__name__)


@final
class Kernel:
    """A pure formula that runs compiled (`compiled`) or operator by operator (`plain`).

    Compiling takes seconds, once for each new kind of arguments and, thanks to the compiler's cache on disk, about a
    second in later processes. Each kind (types, dimensions, which arguments are absent, whether one starts at the
    beginning of its memory) is compiled on its own with all sizes free: Dynamo counts recompilations for each code
    object, and at its limit of 8 it would silently run uncompiled from then on. Where compiling fails the formula runs
    plainly, after one warning.
    """

    failed = False

    def __init__(self, formula: Callable[..., Any]) -> None:
        self.plain: Callable[..., Any] = inspect.unwrap(formula)
        self._of_kind = cache(self._compile)

    def compiled(self, *arguments: Any) -> Any:
        """The formula's value from one kernel."""
        if not Kernel.failed:
            try:
                return self._of_kind(_kind(arguments))(*_no_views(arguments))
            except (RuntimeError, OSError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                Kernel.failed = True
                reason = " ".join(str(error).split())[:200]
                log.warning("gates run uncompiled, which is slower: torch.compile failed (%s)", reason)
        return self.plain(*arguments)

    def tiled(self, size: int, rows: int, *arguments: Any, whole: torch.Tensor | None) -> tuple[Any, ...]:
        """The formula's values operator by operator, ``size`` of ``rows`` rows after the other; ``whole`` has none."""
        tiles = [slice(first, first + size) for first in range(0, rows, size)]
        pieces = [self.plain(*(_tile(a, tile, whole) for a in arguments)) for tile in tiles]
        if len(pieces) == 1:
            return tuple(pieces[0])
        return tuple(None if p[0] is None else torch.cat(p) for p in zip(*pieces, strict=True))

    def _compile(self, kind: str) -> Callable[..., Any]:
        """A twin of the formula with a code object of its own, to be compiled at its first call."""
        code = self.plain.__code__.replace(co_name=f"{self.plain.__name__}_{zlib.crc32(kind.encode()):x}")
        twin = types.FunctionType(code, self.plain.__globals__, code.co_name)
        return torch.compile(twin, dynamic=True, fullgraph=True)


def _tile(argument: Any, tile: slice, whole: torch.Tensor | None) -> Any:
    """The rows ``tile`` of every tensor but ``whole``."""
    if isinstance(argument, tuple):
        return tuple(_tile(a, tile, whole) for a in argument)
    return argument[tile] if isinstance(argument, torch.Tensor) and argument is not whole else argument


def _kind(arguments: Any) -> str:
    """All that a kernel is made for but the sizes."""
    if isinstance(arguments, torch.Tensor):
        first = arguments.storage_offset() == 0
        ones = "".join("1" if n == 1 else "n" for n in arguments.shape)
        return f"{arguments.device.type} {arguments.dtype} {ones} {arguments.is_contiguous()} {first}"
    if isinstance(arguments, tuple):
        return f"[{', '.join(_kind(a) for a in arguments)}]"
    return repr(arguments)


def _no_views(arguments: Any) -> Any:
    """The same tensors without their bases, whose sizes Dynamo would look at, too."""
    if isinstance(arguments, tuple):
        return tuple(_no_views(a) for a in arguments)
    return arguments.detach() if isinstance(arguments, torch.Tensor) else arguments
