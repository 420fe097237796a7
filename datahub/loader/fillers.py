"""Damaged samples of a batch in the making: named, set aside, and black images in their rows."""

from __future__ import annotations

import numpy as np
import torch

from datahub.core.errors import DamagedSample
from datahub.loader.quarantine import SetsAside, filler
from datahub.loader.work import Work
from datahub.store.dataset import Split
from datahub.tensor.folding import Folded


class Fillers:
    """Safe to use from many threads, each with rows of its own. ``fold``: what frames the images, if anything does."""

    def __init__(self, split: Split, quarantine: SetsAside | None, channels: int, fold: Folded | None) -> None:
        self._split, self._quarantine, self._channels, self._fold = split, quarantine, channels, fold

    @property
    def allowed(self) -> bool:
        """Whether a damaged sample may be set aside; else it is an error."""
        return self._quarantine is not None

    def damage(self, work: Work, row: int, cause: str, offset: int | None = None) -> DamagedSample:
        """What to raise for the sample in ``row``. ``offset``: where it is in the shard, if not in the image."""
        place = work.rows[row]
        shard = self._split.shards[int(place["shard"])].name
        where = int(place["offset"]) if offset is None else offset
        return DamagedSample(shard, self._split.key(int(work.step.index[row])), where, cause)

    def set_aside(self, work: Work, row: int, damage: DamagedSample) -> None:
        """Put a filler in the row and record why, once. Raises ``damage`` where none is allowed."""
        if self._quarantine is None:
            raise damage
        if row in work.aside:
            return
        work.aside.add(row)
        self._fill(work, row)
        self._quarantine.add(int(work.step.index[row]), damage)

    def blank(self, work: Work, rows: slice) -> None:
        """Fillers in place of sound images whose sample is damaged beside them."""
        for row in work.aside.intersection(range(rows.start, rows.stop)):
            self._fill(work, row)

    def _fill(self, work: Work, row: int) -> None:
        if work.slab is not None:
            work.slab[row] = 0
        else:
            work.each[row] = self._filler(work, row)

    def _filler(self, work: Work, row: int) -> torch.Tensor:
        """A black image of the size that the sample's would have."""
        whole = filler(work.rows[row], self._channels)
        if self._fold is None:
            return whole
        source = np.array([whole.shape[1:]], np.int64)
        frames = self._fold.frames(source, work.draws.take(slice(row, row + 1)))
        height, width = frames.window[0, 2:].tolist()
        return torch.zeros((self._channels, height, width), dtype=torch.uint8)
