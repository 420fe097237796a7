from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack.fetch import Options, pack_files
from datahub.pack.sources import Reading, target_of
from datahub.store.dataset import Dataset, open_dataset

Pack = Callable[..., Dataset]


def jpeg(seed: int = 0) -> bytes:
    """A small JPEG; each seed's is another."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 20, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def pack(settings: Settings) -> Pack:
    """Packs a source as ``own@1`` and opens it; keywords are a `Reading`'s."""

    def run(source: str, **reading: object) -> Dataset:
        wanted = target_of(source, Ref("own", "1"), settings, Reading(**reading))  # type: ignore[arg-type]
        pack_files(wanted, (), settings, Options(jobs=1, replace=True))
        return open_dataset("own@1", settings)

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """``0.jpg`` to ``7.jpg``, side by side."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    return folder
