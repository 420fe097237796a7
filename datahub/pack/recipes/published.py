"""The recipe `published`: bytes as they were published; pixels, where a source holds pixels, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.pack import png
from datahub.pack.recipes import Made


@dataclass(frozen=True, slots=True)
class Published:
    name: str = "published"

    def facts(self) -> dict[str, Any]:
        return {}

    def encode(self, pixels: NDArray[np.uint8]) -> list[bytes]:
        return png.encode(pixels)

    def transform(self, files: Sequence[bytes]) -> list[Made]:
        return [Made(data) for data in files]
