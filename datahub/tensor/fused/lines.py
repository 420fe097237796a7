"""Lookups that are a line: the same numbers by one multiplication and addition, which a kernel has at hand.

A table of 256 numbers a channel is read from memory for every value; two numbers a channel are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

NEAR = 12
"""Steps of float32 around the slope and around the start that are tried."""
SOME = 64

Floats = NDArray[np.float32]


class Lookup(NamedTuple):
    """What becomes of pixel values. ``table`` ``(C, 256)`` says it; ``line`` float32 ``(C, 2)``, where there is one,
    is a slope and a start that give exactly the table's numbers, rounded once or twice on the way."""

    table: torch.Tensor
    line: torch.Tensor | None = None

    def to(self, device: torch.device) -> Lookup:
        return Lookup(self.table.to(device), None if self.line is None else self.line.to(device))


def line_of(table: torch.Tensor, slope: Sequence[float], start: Sequence[float]) -> torch.Tensor | None:
    """The line of ``table`` ``(C, 256)`` on the host, near ``slope`` and ``start`` of each channel.

    None where no such line gives it exactly, as in float32 few do.
    """
    found = [_line(*each) for each in zip(table, slope, start, strict=True)]
    if any(each is None for each in found):
        return None
    return torch.from_numpy(np.stack([each for each in found if each is not None]))


def _line(row: torch.Tensor, slope: float, start: float) -> Floats | None:
    tried = np.array([(a, b) for a in _near(slope) for b in _near(start)], np.float32)
    for first in range(0, len(tried), SOME):
        some = tried[first : first + SOME]
        right = np.flatnonzero(_gives(some, row))
        if len(right):
            found: Floats = some[right[0]]
            return found
    return None


def _near(number: float) -> Floats:
    """``number`` and float32's neighbours of it, the nearest first."""
    middle = np.float32(number)
    steps = np.arange(-NEAR, NEAR + 1) * float(np.spacing(middle))
    return (float(middle) + steps[np.argsort(np.abs(steps), kind="stable")]).astype(np.float32)


def _gives(lines: Floats, row: torch.Tensor) -> NDArray[np.bool_]:
    """Which of ``lines`` ``(n, 2)`` are ``row``, with products rounded before they are added, and without."""
    values = np.arange(256, dtype=np.float32)
    slope, start = lines[:, :1], lines[:, 1:]
    twice = slope * values + start
    once = (slope.astype(np.float64) * values + start).astype(np.float32)
    alike = [(torch.from_numpy(each).to(row.dtype) == row).all(1).numpy() for each in (once, twice)]
    both: NDArray[np.bool_] = alike[0] & alike[1]
    return both
