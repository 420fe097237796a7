"""A batch half made, and the parts of it that threads take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from datahub.loader.annotations import Values
from datahub.loader.residency_files import Resident
from datahub.loader.schedule import Step
from datahub.stream.source import ShardSource
from datahub.tensor.draws import Draws

PIECE_BYTES = 256 << 10
"""Encoded bytes that are worth a thread of their own."""
READ_BYTES = 4 << 20
"""The same where nothing is decoded: with many threads in short reads, the interpreter's lock is the limit."""


@dataclass
class Work:
    """A batch half made. Images of one shape are rows of ``slab``; others, or results of a callable, in ``each``."""

    step: Step
    rows: NDArray[Any]
    draws: Draws
    slab: torch.Tensor | None
    each: list[Any] = field(default_factory=list)
    aside: set[int] = field(default_factory=set)
    """Rows whose sample is damaged: they come as fillers."""
    encoded: list[bytes] = field(default_factory=list)
    """The images' bytes, where a batch shows them."""
    beside: list[Values] = field(default_factory=list)
    """Boxes, masks and the like, where a batch shows them."""
    turns: list[int] = field(default_factory=list)
    """EXIF orientations of the images, where what stands beside them is turned, too."""
    decoded: bool = True
    clips: bool = False
    """Whether videos are decoded, each of which is worth a thread."""
    resident: Resident | None = None
    """The pixels of all rows, where they were decoded before."""
    source: ShardSource | None = None
    """What holds the bytes of this batch alone; None: the loader's own source has them."""

    def pieces(self, workers: int) -> list[slice]:
        """Parts for threads to take: few where the images are small, for then the interpreter's lock is the limit."""
        count = len(self.rows)
        if self.resident is not None and self.slab is None and not self.beside:
            return [slice(0, count)]  # a batched transform takes them all at the end: pieces would do nothing
        worth = PIECE_BYTES if self.decoded else READ_BYTES
        pieces = count if self.clips else int(self.rows["size"].sum()) // worth
        parts = max(1, min(workers, count, pieces))
        return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]
