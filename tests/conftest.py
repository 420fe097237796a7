"""Shared fixtures. Real files come from DATAHUB_TEST_DATA (default: ../shared/data beside the checkout)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Without a card, Triton's kernels are interpreted. It decides when it is imported, which torch does.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

from datahub.core.settings import Settings

# Whoever runs the tests under nohup has all that they start ignore it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("DATAHUB_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}; set DATAHUB_TEST_DATA")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with an empty home of their own."""
    return Settings(home=tmp_path / "home")
