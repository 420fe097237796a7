"""Recipes: what packing does to an image's bytes. `published` keeps them; the others make a variant of them.

A recipe is pure: equal input gives equal output, whatever the worker and whatever stands beside the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one image file."""

    data: bytes
    kept: str = ""
    """Why the bytes are those that came in, in a word or two that can be counted ("CMYK", "small"); "" where made."""
    damage: str = ""
    """Why the image cannot be decoded; then ``data`` are the bytes that came in."""


class Recipe(Protocol):
    """Pickles small, for every worker makes its own."""

    @property
    def name(self) -> str:
        """``published``, ``tiled``, ``max256``, ``raw``: how people ask for it."""
        ...

    def facts(self) -> dict[str, Any]:
        """What decides the bytes, ready for JSON: part of the plan digest."""
        ...

    def encode(self, pixels: NDArray[np.uint8]) -> list[bytes]:
        """Files of uint8 (n, H, W) or (n, H, W, 3) pixels, for sources that hold pixels."""
        ...

    def transform(self, files: Sequence[bytes]) -> list[Made]:
        """What becomes of encoded image files, in their order."""
        ...
