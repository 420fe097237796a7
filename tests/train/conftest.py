"""A tiny packed dataset to train on, by one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from datahub.core.settings import Settings
from tests.store.builder import tiny_variant


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take a hundred times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def home(settings: Settings) -> Settings:
    tiny_variant(settings.home, splits={"train": 50, "test": 13}, shards=2, size=(32, 32))
    return settings
