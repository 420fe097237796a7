"""A packed dataset of distinct JPEGs, made of any few: what the benchmarks of streaming read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import datahub
from datahub.core.settings import Settings
from tests.benchmarks._ilsvrc import distinct

CLASSES = 100


def pack_images(home: Path, images: Path, samples: int, ref: str = "streamed@1") -> Settings:
    """Settings of the store ``home``, which holds ``ref``: ``samples`` images, those of ``images`` over and over."""
    settings = Settings(home=home)
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        raise SystemExit(f"{images} holds no .jpg or .jpeg file")
    if (home / "datasets" / ref.replace("@", "/")).exists():
        return settings
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        for number in range(samples):
            path = Path(folder, f"c{number % CLASSES:03d}", f"{number:07d}.jpg")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(distinct(paths[number % len(paths)].read_bytes(), number))
        datahub.pack(f"imagefolder:{folder}", ref, splits={"train": samples}, settings=settings, jobs=2)
    return settings
