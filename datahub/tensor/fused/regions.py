"""What is taken of each decoded image: `Regions`, the arrays that the fused kernel and its reference read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """A box of each image is scaled to ``scaled``, of which a window of ``size`` from ``corner`` is shown.

    ``box`` float64 ``(B, 4)``: left, top, width, height in pixels of the decoded image, fractions where that was
    decoded at another scale than the box was drawn for. ``scaled`` and ``corner`` int64 ``(B, 2)``: height and width,
    top and left; what of a window lies outside of what was scaled is black. ``flip`` bool ``(B,)`` mirrors it.
    """

    box: Floats
    scaled: Ints
    corner: Ints
    flip: NDArray[np.bool_]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.flip)

    @staticmethod
    def of(
        scaled: Ints,
        window: Ints,
        flip: NDArray[np.bool_],
        size: tuple[int, int],
        places: Sequence[tuple[float, float, float, float]],
    ) -> Regions:
        """Of a batch's `Frames` whose windows all have ``size``; ``places`` are their boxes in what was decoded."""
        box = np.array(places, np.float64).reshape(-1, 4)
        return Regions(box, np.ascontiguousarray(scaled), window[:, :2].copy(), flip, size)

    def take(self, rows: Ints) -> Regions:
        return Regions(self.box[rows], self.scaled[rows], self.corner[rows], self.flip[rows], self.size)

    def limits(self, images: Ints) -> tuple[Ints, Ints]:
        """First and past-the-last pixel, ``(B, 2)`` of rows and columns, that each box may read.

        ``images`` are heights and widths. Raises ``ValueError`` for a box that is empty or not inside its image.
        """
        start, length = self.box[:, [1, 0]], self.box[:, [3, 2]]
        low, high = np.floor(start).astype(np.int64), np.ceil(start + length).astype(np.int64)
        bad = (length <= 0).any(1) | (low < 0).any(1) | (high > images).any(1) | (self.scaled < 1).any(1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(f"box {row} is no part of its image: {self.box[row].tolist()} of {images[row].tolist()}")
        return low, high
