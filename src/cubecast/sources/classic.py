"""Classic netCDF (CDF-1, CDF-2, CDF-5): is the file as long as its header says?

The library opens a truncated classic file without a word and gives zeros for what is not there. The header is read
here first, as in the format's specification (https://docs.unidata.ucar.edu/nug/current/file_format_specifications.html).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import BinaryIO

from cubecast.errors import InputError

_TYPE_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12


class _DamagedError(Exception):
    """The header says something that cannot be."""


@dataclass(frozen=True, slots=True)
class _Variable:
    begin: int
    size: int
    is_record: bool

    @property
    def padded(self) -> int:
        return -(-self.size // 4) * 4


class _Header:
    """Reads the header's numbers; no count may be larger than the file, so that a damaged one costs nothing."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.file, self.length = file, length
        version = file.read(4)[3]
        self.count_size = 8 if version == 5 else 4
        self.offset_size = 4 if version == 1 else 8

    def number(self, size: int) -> int:
        data = self.file.read(size)
        if len(data) < size:
            raise _DamagedError("the header is cut off")
        return int.from_bytes(data, "big")

    def count(self) -> int:
        value = self.number(self.count_size)
        if value > self.length:
            raise _DamagedError(f"a count of {value} in the header")
        return value

    def skip(self, size: int) -> None:
        if self.file.tell() + size > self.length:
            raise _DamagedError("the header is cut off")
        self.file.seek(-(-size // 4) * 4, os.SEEK_CUR)

    def items(self, tag: int) -> int:
        found, count = self.number(4), self.count()
        if found not in (0, tag) or (found == 0 and count):
            raise _DamagedError(f"tag {found} in the header where {tag} belongs")
        return count

    def attributes(self) -> None:
        for _ in range(self.items(_ATTRIBUTE)):
            self.skip(self.count())
            size = self.type_size()
            self.skip(size * self.count())

    def type_size(self) -> int:
        kind = self.number(4)
        if kind not in _TYPE_SIZE:
            raise _DamagedError(f"type {kind} in the header")
        return _TYPE_SIZE[kind]

    def variables(self) -> tuple[int | None, list[_Variable]]:
        """The number of records (None: to be counted from the file's length) and all variables."""
        records = self.number(self.count_size)
        streaming = records == 2 ** (8 * self.count_size) - 1
        dims = []
        for _ in range(self.items(_DIMENSION)):
            self.skip(self.count())
            dims.append(self.number(self.count_size))
        self.attributes()
        out = []
        for _ in range(self.items(_VARIABLE)):
            self.skip(self.count())
            ids = [self.count() for _ in range(self.count())]
            if any(i >= len(dims) for i in ids):
                raise _DamagedError("a dimension that is not declared")
            self.attributes()
            size = self.type_size()
            self.number(self.count_size)  # vsize: redundant, and wrong for variables over 4 GB
            begin, is_record = self.number(self.offset_size), bool(ids) and dims[ids[0]] == 0
            out.append(_Variable(begin, size * math.prod(dims[i] for i in ids[is_record:]), is_record))
        return (None if streaming else records), out


def check_length(path: str) -> None:
    """Refuse a classic netCDF file that is shorter than its header says.

    Raises:
        InputError: it is truncated, or its header is damaged.
    """
    length = os.path.getsize(path)
    try:
        with open(path, "rb") as file:
            records, variables = _Header(file, length).variables()
    except _DamagedError as error:
        raise InputError(f"{path} is no whole netCDF file", found=str(error), remedy="get it again") from None
    recorded = [v for v in variables if v.is_record]
    # one record variable alone is packed without padding
    step = recorded[0].size if len(recorded) == 1 else sum(v.padded for v in recorded)
    ends = [v.begin + v.size for v in variables if not v.is_record]
    if records:
        ends += [v.begin + (records - 1) * step + v.size for v in recorded]
    needed = max(ends, default=0)
    if length < needed:
        raise InputError(
            f"{path} is truncated",
            found=f"{length} bytes",
            allowed=f"the {needed} of its header",
            remedy="get it again",
        )
