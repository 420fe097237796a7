"""Sources in memory. At module level, so that spawned workers can unpickle them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datahub.core.settings import Settings
from datahub.pack.plan import PackPlan, plan
from datahub.pack.source import Chunk
from datahub.registry.schema import Layout, Licence, Manifest, Tried
from datahub.store.record import FieldSpec


@dataclass(frozen=True)
class Pictures:
    """``counts`` random pictures a split; every one is a function of its split and index."""

    counts: Mapping[str, int]
    shape: tuple[int, ...] = (9, 7, 3)
    labelled: bool = True
    scalars: tuple[str, ...] = ()
    random_access: bool = True
    encoded: Mapping[int, bytes] = field(default_factory=dict)
    """Files by index in place of pixels; all of them, or none."""
    pause: float = 0.0

    def splits(self) -> Mapping[str, int]:
        return self.counts

    def classes(self) -> list[str] | None:
        return ["a", "b", "c"]

    def fields(self) -> Mapping[str, FieldSpec]:
        fields = {"image": FieldSpec(type="image", extension="jpeg" if self.encoded else "png")}
        if self.labelled:
            fields["label"] = FieldSpec(type="label", extension="cls")
        return fields | {name: FieldSpec(type="int", extension="json") for name in self.scalars}

    def estimate(self, split: str) -> int:
        return 300

    def pixels(self, split: str, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.random.default_rng([len(split), index]).integers(0, 256, self.shape, np.uint8)

    def read(self, split: str, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Chunk:
        time.sleep(self.pause)
        picked = [int(i) for i in indices]
        images = (
            [self.encoded[i] for i in picked] if self.encoded else np.stack([self.pixels(split, i) for i in picked])
        )
        return Chunk(
            images=images,
            labels=np.array([i % 3 for i in picked]) if self.labelled else None,
            sources=[f"{split}/{i}" for i in picked],
            scalars={name: np.array([i * 10 for i in picked]) for name in self.scalars},
        )

    def facts(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "shape": self.shape, "scalars": self.scalars, "encoded": len(self.encoded)}


def planned(source: Pictures, settings: Settings, **options: Any) -> PackPlan:
    manifest = Manifest(
        name="toy", version="1.0", title="Toy", licence=Licence(), task="image-classification", digest="sha256:0",
        splits=dict(source.counts), classes=["a", "b", "c"], tried=Tried(how="never"), layout=Layout(kind="idx"),
    )  # fmt: skip
    return plan(source, manifest=manifest, variant="published", settings=settings, **options)
