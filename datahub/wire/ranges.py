"""The Range header (RFC 9110, 14): one range of bytes, several that ascend, or none.

What the RFC lets a server ignore is ignored, and the whole is sent: other units, malformed headers, and ranges that are
many, go back or overlap, so that no answer is longer than what it is taken from. What cannot be satisfied is refused.
Reading a header costs no more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SPEC = re.compile(r"([0-9]*)-([0-9]*)")
UNIT = "bytes="
MOST = 64
"""Ranges of one request, and commas after which a header is not looked into."""
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


def header_of(spans: Sequence[Range]) -> str:
    """As a request says several."""
    return UNIT + ",".join(f"{each.start}-{each.end - 1}" for each in spans)


def parse(header: str, total: int) -> Range | None:
    """The range of a resource of ``total`` bytes that a header asks for; None: the whole. Raises `Unsatisfiable`."""
    specs = _specs(header)
    return _one(specs[0], total) if len(specs) == 1 else None


def parse_many(header: str, total: int) -> tuple[Range, ...]:
    """The ranges that a header asks for, as it names them; none: the whole. Raises `Unsatisfiable`.

    Of several each must be inside, and begin after the one before it ended.
    """
    specs = _specs(header)
    if len(specs) <= 1:
        found = parse(header, total)
        return () if found is None else (found,)
    try:
        spans = [_one(each, total) for each in specs]
    except Unsatisfiable:
        return ()
    whole = tuple(each for each in spans if each is not None)
    ascending = all(before.end <= after.start for before, after in pairwise(whole))
    return whole if len(whole) == len(spans) <= MOST and ascending else ()


def _specs(header: str) -> list[str]:
    if header[: len(UNIT)].lower() != UNIT or header.count(",") > MOST:
        return []
    return [part for each in header[len(UNIT) :].split(",") if (part := each.strip(" \t"))]


def _one(spec: str, total: int) -> Range | None:
    match = SPEC.fullmatch(spec)
    if match is None or match.group() == "-":
        return None
    first, last = match.groups()
    start = _number(first) if first else max(0, total - _number(last))
    end = min(total, _number(last) + 1) if first and last else total
    if first and last and _number(last) < start:
        return None
    if start >= total:
        raise Unsatisfiable(spec)
    return Range(start, end)


def _number(digits: str) -> int:
    """Its value, or something as good as infinite."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= DIGITS else HUGE
