"""The seam between raw layouts and the packer: a `Source` hands out samples of its splits as `Chunk`s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from datahub.store.record import FieldSpec


@dataclass(frozen=True)
class Chunk:
    """n samples, in the order they were asked for."""

    images: np.ndarray | list[bytes]
    """uint8 (n, H, W) or (n, H, W, C) pixels, to be stored losslessly, or n encoded image files."""
    labels: np.ndarray | None
    """int64 (n,), or None where the source has no labels."""
    sources: list[str]
    """The original name of each sample, for people."""
    scalars: Mapping[str, np.ndarray | list[Any]] = field(default_factory=dict)
    """Further columns by field name: n ints, floats or strings (of type json: JSON texts), None where there is none;
    of a type with a row an object n lists of rows, see `datahub.store.typed`."""
    members: Mapping[str, list[bytes]] = field(default_factory=dict)
    """Fields that have a member of their own: n files, empty where there is none."""
    sizes: np.ndarray | None = None
    """int64 (n, 2), width and height, where known for encoded images."""

    def __len__(self) -> int:
        return len(self.sources)


class Source(Protocol):
    """A description of raw data that pickles small and opens lazily, so that every worker opens its own."""

    @property
    def random_access(self) -> bool:
        """True: `read` takes any indices at equal cost; False: only ascending ones are cheap."""
        ...

    def splits(self) -> Mapping[str, int]:
        """Split name -> samples."""
        ...

    def classes(self) -> list[str] | None:
        """What the files themselves say, None if they do not."""
        ...

    def fields(self) -> Mapping[str, FieldSpec]:
        """First ``image``; ``label`` where there are labels; others are ``int``, ``float``, ``text``, ``json``, or of
        a type of `datahub.store.typed`."""
        ...

    def estimate(self, split: str) -> int | np.ndarray:
        """Image bytes a sample: one int, or exact encoded sizes, int64 (n,)."""
        ...

    def read(self, split: str, indices: np.ndarray) -> Chunk:
        """The samples at these source indices, in the asked order."""
        ...

    def facts(self) -> dict[str, Any]:
        """What decides the content, ready for JSON: part of the plan digest."""
        ...
