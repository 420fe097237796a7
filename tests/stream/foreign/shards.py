"""Shards as people have them: by webdataset's ShardWriter, by tarfile in its three formats."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_iterator

Members = Iterable[tuple[str, bytes]]


@cache
def image(number: int, size: tuple[int, int] = (12, 10), kind: str = "PNG") -> bytes:
    """An image that looks like no other number's."""
    height, width = size
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def tar(members: Members, format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sample(number: int, key: str | None = None, **further: bytes) -> list[tuple[str, bytes]]:
    key = f"{number:06d}" if key is None else key
    return [
        (f"{key}.png", image(number)),
        (f"{key}.cls", b"%d" % (number % 3)),
        *((f"{key}.{k}", v) for k, v in further.items()),
    ]


def write_shards(folder: Path, count: int = 50, each: int = 20, name: str = "train", **further: Any) -> list[Path]:
    """Shards of webdataset's own writer: ``count`` samples of one shape, with class and JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(folder / f"{name}-%06d.tar"), maxcount=each, verbose=0) as writer:
        for number in range(count):
            made = {"__key__": f"{number // 7}/{number:05d}", "png": image(number), "cls": number % 3}
            writer.write({**made, "json": {"weight": number * 3}, **further})
    return sorted(folder.glob(f"{name}-*.tar"))


def theirs(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The samples that webdataset reads, in its order."""
    found: list[dict[str, Any]] = []
    for path in paths:
        with path.open("rb") as stream:
            files = tar_file_iterator(stream)  # type: ignore[arg-type]
            found += group_by_keys({**each, "__url__": path.name} for each in files)
    return found
