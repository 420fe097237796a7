"""The Range header (RFC 9110, 14): one range of bytes, or none.

What the RFC lets a server ignore is ignored, and the whole is sent: other units, malformed headers, and more ranges
than one. What cannot be satisfied is refused. Reading a header costs no more than its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SPEC = re.compile(r"([0-9]*)-([0-9]*)")
UNIT = "bytes="
MOST = 32
"""Commas after which a header is not looked into: it asks for more than one range."""
DIGITS = 64
"""Of a number that is looked at; a longer one is as good as infinite."""
HUGE = 10**DIGITS


class Unsatisfiable(ValueError):
    """A range that begins at or after the end."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``[start, end)``; never empty."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def header(self) -> str:
        """As a request says it."""
        return f"bytes={self.start}-{self.end - 1}"

    def content(self, total: int) -> str:
        """As a 206 answer says it."""
        return f"bytes {self.start}-{self.end - 1}/{total}"


def parse(header: str, total: int) -> Range | None:
    """The range of a resource of ``total`` bytes that a header asks for; None: the whole. Raises `Unsatisfiable`."""
    if header[: len(UNIT)].lower() != UNIT or header.count(",") > MOST:
        return None
    specs = [part for each in header[len(UNIT) :].split(",") if (part := each.strip(" \t"))]
    match = SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if match is None or match.group() == "-":
        return None
    first, last = match.groups()
    start = _number(first) if first else max(0, total - _number(last))
    end = min(total, _number(last) + 1) if first and last else total
    if first and last and _number(last) < start:
        return None
    if start >= total:
        raise Unsatisfiable(header)
    return Range(start, end)


def _number(digits: str) -> int:
    """Its value, or something as good as infinite."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= DIGITS else HUGE
