"""Masks following the pixels at the nearest one: one look-up for all the steps of an image, and for all its masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.store.scaling import nearest
from datahub.tensor.geometry import Placement, Stage
from datahub.tensor.warp import sources
from datahub.tensor.warped import Warp
from datahub.tensor.windows import PADDING

Ints = NDArray[np.int64]


class Trace:
    """Which pixel of a mask each pixel shows: of a row and a column, until a warp gives every pixel a place of its own.

    -1 is none: what lies beyond the image.
    """

    def __init__(self, height: int, width: int) -> None:
        self._rows, self._columns, self._width = np.arange(height), np.arange(width), width
        self._places: Ints | None = None
        """Of each row and column by now, the pixel's number in the mask."""

    def go(self, step: Stage, row: int) -> None:
        """Go the way of the batch's image ``row``."""
        if isinstance(step, Placement):
            self._placed(step, row)
        elif isinstance(step, Warp) and step.moved[row]:
            before = self._numbers()
            found = sources(torch.from_numpy(step.maps[row : row + 1]), *before.shape)[0].numpy()
            self._places = np.where(found < 0, -1, before.reshape(-1)[found])
            self._rows, self._columns = (np.arange(length) for length in before.shape)

    def taken(self, mask: NDArray[Any], fill: int) -> NDArray[Any]:
        """``(..., H, W)`` along the steps; ``fill``: what stands beyond the image."""
        if self._places is not None:
            places = self._numbers()
            found: NDArray[Any] = mask.reshape(*mask.shape[:-2], mask.shape[-2] * mask.shape[-1]).take(places, axis=-1)
            np.copyto(found, fill, where=places < 0)
            return found
        found = mask.take(self._rows, axis=-2, mode="clip").take(self._columns, axis=-1, mode="clip")
        found[..., self._rows < 0, :] = fill
        found[..., :, self._columns < 0] = fill
        return found

    def _numbers(self) -> Ints:
        """``(H, W)``: the mask's pixel that each shows."""
        if self._places is None:
            found = self._rows[:, None] * self._width + self._columns
        else:
            found = self._places.take(self._rows, axis=0, mode="clip").take(self._columns, axis=1, mode="clip")
        found[self._rows < 0] = found[:, self._columns < 0] = -1
        return found

    def _placed(self, step: Placement, row: int) -> None:
        left, top, width, height = step.box[row].tolist()
        tall, wide = step.scaled[row].tolist()
        y, x, high, across = step.window[row].tolist()
        rows = nearest(self._rows[top : top + height], tall)
        columns = nearest(self._columns[left : left + width], wide)
        before, above, behind, below = step.edges
        rows = _window(rows, y, high, (above, below), step.mode)
        columns = _window(columns, x, across, (before, behind), step.mode)
        self._rows = rows[::-1] if step.upended[row] else rows
        self._columns = columns[::-1] if step.mirrored[row] else columns


def _window(line: Ints, first: int, length: int, edges: tuple[int, int], mode: str) -> Ints:
    if mode != "constant" and any(edges):
        line, first = np.pad(line, edges, PADDING[mode]), first + edges[0]  # type: ignore[call-overload]
    at = np.arange(first, first + length)
    inside = (at >= 0) & (at < len(line))
    found: Ints = np.where(inside, line[np.clip(at, 0, len(line) - 1)], -1)
    return found
