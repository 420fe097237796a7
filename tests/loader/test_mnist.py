"""The published MNIST, packed and streamed, against its own files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

import datahub
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from tests.loader.conftest import same


def published(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    pixels = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def test_every_published_digit_comes_once(shared_data, tmp_path):
    settings = Settings(home=tmp_path)
    datahub.fetch("mnist", from_=str(shared_data), settings=settings)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        pixels, labels = published(shared_data / "mnist", prefix)
        with StreamingLoader("mnist", split, batch_size=512, shuffle=True, settings=settings) as loader:
            images, classes = zip(*((batch["image"], batch["label"]) for batch in loader), strict=True)
        found = torch.cat(images).numpy()[:, 0]
        rows = sorted(zip(map(bytes, found), torch.cat(classes).tolist(), strict=True))
        assert rows == sorted(zip(map(bytes, pixels), labels.tolist(), strict=True))
    _resume(settings)


def _resume(settings: Settings) -> None:
    """Four ranks of another run go on at 90 % with the bits that one rank sees."""
    arguments = {"global_batch_size": 500, "shuffle": True, "seed": 3, "transform": "mnist", "settings": settings}
    with StreamingLoader("mnist", **arguments) as one:
        one.skip(108)
        state, whole = one.state_dict(), next(iter(one))
    parts = []
    for rank in range(4):
        with StreamingLoader("mnist", topology=datahub.Topology(rank, 4), **arguments) as loader:
            loader.load_state_dict(state)
            parts.append(next(iter(loader)))
    assert whole["image"].dtype == torch.float32 and whole["image"].shape == (500, 1, 28, 28)
    for name in ("image", "label", "index"):
        assert same(torch.cat([part[name] for part in parts]), whole[name])
