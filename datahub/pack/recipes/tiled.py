"""The recipe `tiled`: JPEGs losslessly re-ordered for cropping inside the bitstream; see `datahub.pack.tiling`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.pack.recipes import Made
from datahub.pack.tiletable import VERSION
from datahub.pack.tiling import INTERVALS, NotTiled, Tiler


@dataclass(frozen=True)
class Tiled:
    name: str = "tiled"

    def facts(self) -> dict[str, Any]:
        return {"layout": VERSION, "intervals": INTERVALS}

    def encode(self, pixels: NDArray[np.uint8]) -> list[bytes]:
        """Raises `BadArgument`: pixels are no JPEGs."""
        what = f"this dataset holds pixels of {pixels.shape[1:]}, not JPEGs"
        raise BadArgument("variant", self.name, what, "pack it as published or raw")

    def transform(self, files: Sequence[bytes]) -> list[Made]:
        return [self._one(data) for data in files]

    def _one(self, data: bytes) -> Made:
        try:
            return Made(self._tiler.tile(data))
        except NotTiled as reason:
            if reason.damaged:
                return Made(data, damage=str(reason))
            return Made(data, kept=reason.reason)

    @cached_property
    def _tiler(self) -> Tiler:
        return Tiler()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}
