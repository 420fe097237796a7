"""A tiny packed variant for each test, in a home of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store.dataset import Dataset, open_dataset
from datahub.store.find import Located, find
from tests.store.builder import tiny_variant


@pytest.fixture
def folder(settings: Settings) -> Path:
    return tiny_variant(settings.home)


@pytest.fixture
def located(folder: Path, settings: Settings) -> Located:
    return find(settings, Ref("tiny"))


@pytest.fixture
def dataset(folder: Path, settings: Settings) -> Dataset:
    return open_dataset("tiny", settings)
