"""What `bench_gpu` reads: JPEGs of about ImageNet's sizes, packed as published and tiled, and 32 x 32 images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.benchmarks._gpu_bench import Bench

ROOT = Path(__file__).resolve().parents[2]
MADE = 64
"""Images drawn where no folder is given."""


def preparations(bench: Bench, images: Path | None, repeat: int) -> dict[str, Callable[[], None]]:
    """What packs what rows read, unless it stands there: `published`, `tiled` (where jpegtran is) and small images."""
    found = {"published": lambda: _published(bench, images, repeat)}
    if shutil.which("jpegtran"):
        found["tiled"] = lambda: _pack(bench, "gpubench@1/published", "gpubench@1/tiled")
    return {**found, "cifar": lambda: small_images(bench)}


def _published(bench: Bench, images: Path | None, repeat: int) -> None:
    from tests.benchmarks._ilsvrc import distinct

    folder = bench.work / "folder"
    if not folder.exists():
        found = sorted(images.rglob("*.[jJ][pP]*[gG]")) if images is not None else []
        encoded = [path.read_bytes() for path in found] or drawn(16 if bench.small else MADE, bench.small)
        for number in range(1 if bench.small else repeat):
            for row, data in enumerate(encoded[:16] if bench.small else encoded):
                to = folder / f"class{row % 10}" / f"{row}-{number}.jpg"
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(distinct(data, number))
    _pack(bench, f"imagefolder:{folder}", "gpubench@1/published")


def _pack(bench: Bench, source: str, ref: str) -> None:
    command = [sys.executable, "-m", "datahub", "--home", str(bench.work / "home"), "pack", "-q", source, ref]
    subprocess.run([*command, "--stats", "none"], check=True, cwd=ROOT, env=dict(os.environ))


def drawn(count: int, small: bool) -> list[bytes]:
    """JPEGs of about ImageNet's sizes and bytes: smooth shapes under noise."""
    import cv2

    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        height, width = rng.integers(40, 90, 2) if small else rng.integers(330, 560, 2)
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (int(width), int(height)), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image += rng.integers(-24, 24, image.shape, dtype=np.int16)
        _, data = cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        found.append(data.tobytes())
    return found


def small_images(bench: Bench) -> None:
    import datahub
    from datahub.core.errors import NotInStore
    from datahub.pack.authoring import Writer

    settings = bench.settings()
    try:
        datahub.open("gpubench-small", settings)
    except NotInStore:
        rng = np.random.default_rng(0)
        with Writer("gpubench-small", {"image": "image", "label": "label"}, settings=settings) as writer:
            for row in range(256 if bench.small else 50_000):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                writer.write(split="train", source=str(row), image=pixels, label=f"c{row % 10}")
