from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack.fetch import fetch


@pytest.fixture(scope="session")
def mnist_store(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a store in which MNIST's published files were packed."""
    settings = Settings(home=tmp_path_factory.mktemp("mnist") / "home", from_=str(shared_data))
    fetch(Ref("mnist"), settings)
    yield settings
