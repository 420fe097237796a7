"""A tiny packed dataset, and what must be seen in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from tests.store.builder import label, pixels, tiny_variant

SPLITS = {"train": 50, "test": 7}


@pytest.fixture
def home(settings: Settings) -> Settings:
    """Settings whose store holds ``tiny``: 12 x 10 RGB images in 3 shards, blocks of 4 samples."""
    tiny_variant(settings.home, splits=SPLITS, shards=3, block=4, scalars={"weight": lambda row: row * 3})
    return settings


@pytest.fixture
def make(home: Settings) -> Iterator[Callable[..., StreamingLoader]]:
    """Loaders over ``tiny``, closed after the test."""
    made = []

    def loader(split: str = "train", ref: str = "tiny", **arguments: Any) -> StreamingLoader:
        if "global_batch_size" not in arguments:
            arguments.setdefault("batch_size", 8)
        arguments.setdefault("num_workers", 2)
        arguments.setdefault("timeout", 30)
        made.append(StreamingLoader(ref, split, settings=home, **arguments))
        return made[-1]

    yield loader
    for each in made:
        each.close()


def image(split: str, row: int) -> torch.Tensor:
    return torch.from_numpy(pixels(split, row)).permute(2, 0, 1)


def check(batch: dict[str, Any], split: str = "train") -> None:
    """Image and label are those of the index, row by row."""
    rows = batch["index"].tolist()
    assert torch.equal(batch["image"], torch.stack([image(split, row) for row in rows]))
    assert batch["label"].tolist() == [label(split, row) for row in rows]


def seen(batches: list[dict[str, Any]]) -> list[int]:
    """Indices of valid rows, in order."""
    return [row for batch in batches for row in batch["index"][batch["valid"]].tolist()]


def same(a: Any, b: Any) -> bool:
    """Two batches hold the same bits and the same state."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a) and _state(a) == _state(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b)) and _state(a) == _state(b)
    return bool(np.all(a == b))


def _state(batch: Any) -> Any:
    return getattr(batch, "state", None)


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("datahub-loader")]


def no_threads(within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not threads()
