"""SIGKILL at random moments of `datahub pack`, scan and commit included, and then the same command again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks._ilsvrc import build
from tests.pack.test_packing import bytes_of

ROOT = Path(__file__).parents[2]
MOMENTS = int(os.environ.get("DATAHUB_TEST_KILLS", "6"))
"""Each costs about four seconds; 20 and more are for a machine with time."""
pytest.importorskip("scipy", reason="the devkit's meta.mat needs scipy")


def start(home: Path, raw: Path, variant: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "datahub", "pack", "-q", f"ilsvrc:{raw}", f"toy@1/{variant}", "-j", "2"]
    environ = {**os.environ, "DATAHUB_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL, start_new_session=True)


def finished(home: Path) -> dict[str, tuple[int, int]]:
    """Finished shards of an unfinished run: name -> (inode, mtime in ns); none where it got as far as publishing."""
    found = {}
    for done in (home / "datasets" / ".building").glob("*/work/*.done"):
        if not (out := done.parent.parent / "out").exists():
            continue
        shard = out / done.name.removesuffix(".done")
        found[shard.name] = (shard.stat().st_ino, shard.stat().st_mtime_ns)
    return found


def wait(child: subprocess.Popen[bytes], seconds: float, home: Path | None) -> None:
    """So long, or, with a ``home``, until it has a finished shard: of random moments none may lie between two."""
    end = time.monotonic() + (seconds if home is None else 300)
    while time.monotonic() < end and child.poll() is None and not (home and finished(home)):
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_at_random_moments(shared_data: Path, tmp_path: Path) -> None:
    variant = "tiled" if shutil.which("jpegtran") else "max256"
    images = sorted((shared_data / "imagenet-sample").glob("*.JPEG"))[:60]
    raw = build(tmp_path / "raw", images, classes=5, samples=120, val=40)
    began = time.monotonic()
    assert start(tmp_path / "plain", raw, variant).wait() == 0
    whole = time.monotonic() - began
    expected = bytes_of(tmp_path / "plain/datasets/toy/1" / variant)
    rng = random.Random(20)
    kept = 0
    for moment in range(MOMENTS):
        home = tmp_path / f"home-{moment}"
        child = start(home, raw, variant)
        wait(child, rng.uniform(0.2, 1.05) * whole, home if not moment else None)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        before = finished(home)
        kept += len(before)
        published = (home / "datasets/toy/1" / variant).exists()
        assert start(home, raw, variant).wait() == 0
        folder = home / "datasets/toy/1" / variant
        after = {name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in before}
        assert after == before, "no finished shard is written twice"
        assert bytes_of(folder) == expected
        # What a run killed right after publishing leaves is for `datahub gc`: nobody looks for it again.
        assert published or not list((home / "datasets/.building").iterdir())
        shutil.rmtree(home)
    assert kept, "some runs were killed after their first shard"
