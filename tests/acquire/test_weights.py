"""Weights are verified by the digest in their name, from wherever they come."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from datahub.acquire.policy import RetryPolicy
from datahub.acquire.weights import fetch_weights
from datahub.core.errors import BadArgument, DigestMismatch, MissingAtOrigin, Offline
from datahub.core.settings import Settings
from tests.acquire.server import Behaviour, serving

DATA = b"weights" * 1000
NAME = f"net-{hashlib.sha256(DATA).hexdigest()[:8]}.pth"
FAST = RetryPolicy(attempts=2, base=0.01, cap=0.02)


def test_downloaded_once_and_verified(settings: Settings) -> None:
    with serving(**{NAME.replace(".", "__"): Behaviour(DATA)}) as origin:
        found = fetch_weights(f"{origin.url}/{NAME}", settings, policy=FAST)
        assert found.path == settings.downloads / "weights" / NAME
        assert found.path.read_bytes() == DATA
        assert found.sha256 == hashlib.sha256(DATA).hexdigest()
        asked = len(origin.requests)
        assert fetch_weights(f"{origin.url}/{NAME}", settings, policy=FAST) == found
        assert len(origin.requests) == asked
    offline = replace(settings, offline=True)
    assert fetch_weights(f"https://gone.invalid/{NAME}", offline).path == found.path


def test_other_bytes_get_no_name(settings: Settings) -> None:
    with serving(**{NAME.replace(".", "__"): Behaviour(DATA[:-1] + b"X")}) as origin, pytest.raises(DigestMismatch):
        fetch_weights(f"{origin.url}/{NAME}", settings, policy=FAST)
    assert not list((settings.downloads / "weights").glob("*.pth"))


def test_a_site_mirror_is_read_in_place(settings: Settings, tmp_path: Path) -> None:
    site = tmp_path / "site" / "weights"
    site.mkdir(parents=True)
    at = replace(settings, from_=str(site.parent))
    with pytest.raises(MissingAtOrigin):
        fetch_weights(f"https://gone.invalid/{NAME}", at)
    (site / NAME).write_bytes(DATA)
    assert fetch_weights(f"https://gone.invalid/{NAME}", at).path == site / NAME
    (site / NAME).write_bytes(DATA + b"!")
    with pytest.raises(DigestMismatch):
        fetch_weights(f"https://gone.invalid/{NAME}", at)


def test_offline_and_names_without_a_digest(settings: Settings) -> None:
    with pytest.raises(Offline):
        fetch_weights(f"https://gone.invalid/{NAME}", replace(settings, offline=True))
    for url in ("https://host.invalid/net.pth", "https://host.invalid/net-zzzzzzzz.pth", "net-123.pth"):
        with pytest.raises(BadArgument, match="digest"):
            fetch_weights(url, settings)
