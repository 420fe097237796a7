"""Stores with small datasets, and a server over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store import blocks
from datahub.store import record as records
from datahub.store.find import Located, find
from datahub.store.record import FileEntry, ManifestEntry, PackerEntry, Record
from tests.serve.running import Running, running
from tests.store.builder import tiny_variant

BIG = (9 << 20) + 12_345
"""Three blocks, the last one short."""


@pytest.fixture
def home(settings: Settings) -> Settings:
    """A store that holds ``tiny`` and ``big``, whose only file has three blocks."""
    tiny_variant(settings.home)
    big_variant(settings.home)
    return settings


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "elsewhere")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Servers that end with the test."""
    with ExitStack() as stack:
        count = iter(range(100))

        def begin(settings: Settings, **options: Any) -> Running:
            return stack.enter_context(running(settings, tmp_path / f"access-{next(count)}.log", **options))

        yield begin


@pytest.fixture
def server(start: Callable[..., Running], home: Settings) -> Running:
    return start(home)


def content(seed: int = 0, size: int = BIG) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def big_variant(home: Path, name: str = "big", seed: int = 0, size: int = BIG) -> Path:
    """A variant without splits that holds one file, ``data.bin``."""
    folder = home / "datasets" / name / "1.0" / "published"
    folder.mkdir(parents=True)
    data = content(seed, size)
    (folder / "data.bin").write_bytes(data)
    found = blocks.of_bytes(data)
    entry = FileEntry(path="data.bin", role="metadata", bytes=size, sha256=found.sha256, blocks=found.blocks)
    blocks.write(folder, [found.raw])
    manifest = ManifestEntry(name=name, version="1.0", digest="sha256:" + "0" * 64)
    record = Record(
        manifest=manifest,
        variant="published",
        plan="sha256:" + hashlib.sha256(name.encode()).hexdigest(),
        packer=PackerEntry(),
        files=[entry],
        fields={},
        splits={},
        classes=[],
    )
    records.write(folder, record)
    return folder


def located(settings: Settings, name: str = "tiny") -> Located:
    return find(settings, Ref.parse(name))


def digest_of(settings: Settings, name: str = "big", path: str = "data.bin") -> str:
    return next(each.sha256 for each in located(settings, name).record.files if each.path == path)
