"""Mean and standard deviation of pixels, as exact integer sums, so that no number of workers changes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.order.permutation import Permutation
from datahub.store.record import Stats

EXACT = 1 << 24
SAMPLED = 10_000
"""Images that statistics are computed from, unless all are asked for."""


def chosen(samples: int, split: str, how: str) -> NDArray[np.int64]:
    """The rows of a split that statistics read, sorted: a keyed choice that depends on nothing but the split.

    ``how``: ``sample`` (at most `SAMPLED`), ``full`` or ``none``.
    """
    if how == "none":
        return np.zeros(0, np.int64)
    if how == "full" or samples <= SAMPLED:
        return np.arange(samples, dtype=np.int64)
    return np.sort(Permutation(samples, "stats", split)(np.arange(SAMPLED)))


@dataclass
class Sums:
    """Per-channel sums over pixels of 0..255."""

    images: int = 0
    pixels: int = 0
    total: list[int] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)

    def add(self, batch: NDArray[np.uint8]) -> None:
        """Add uint8 ``(n, H, W)`` or ``(n, H, W, C)``."""
        flat = batch.reshape(-1, batch.shape[-1] if batch.ndim == 4 else 1)
        # A histogram a channel gives exact sums without a wide copy of the pixels.
        counts = np.stack([_histogram(flat[:, c]) for c in range(flat.shape[1])])
        values = np.arange(256)
        self.merge(Sums(len(batch), len(flat), (counts @ values).tolist(), (counts @ (values * values)).tolist()))

    def merge(self, other: Sums) -> None:
        self.images += other.images
        self.pixels += other.pixels
        self.total = _plus(self.total, other.total)
        self.squares = _plus(self.squares, other.squares)

    def to_dict(self) -> dict[str, Any]:
        return {"images": self.images, "pixels": self.pixels, "total": self.total, "squares": self.squares}

    def result(self, full: bool) -> Stats | None:
        if not self.pixels:
            return None
        mean = [each / self.pixels for each in self.total]
        variance = [max(s / self.pixels - m * m, 0.0) for s, m in zip(self.squares, mean, strict=True)]
        return Stats(
            mean=[round(m / 255, 6) for m in mean],
            std=[round(v**0.5 / 255, 6) for v in variance],
            images=self.images,
            full=full,
        )


def _histogram(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of the 256 values occurs."""
    import cv2  # 30 ms that packing without statistics need not spend

    counts = np.zeros(256, np.int64)
    for first in range(0, len(values), EXACT):  # OpenCV counts in float32: ten times as fast as numpy, exact this far
        piece = np.ascontiguousarray(values[first : first + EXACT]).reshape(1, -1)
        counts += cv2.calcHist([piece], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return counts


def _plus(a: list[int], b: list[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)] if a and b else list(a or b)
