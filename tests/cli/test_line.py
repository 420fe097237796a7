"""The whole line as a person types it, on MNIST's real published files."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Result


@pytest.fixture(scope="module")
def packed(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with MNIST fetched by the command line, once for this module."""
    home = tmp_path_factory.mktemp("line") / "home"
    command = [sys.executable, "-m", "datahub", "fetch", "mnist", "--from", str(shared_data), "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "fetched and packed" in done.stdout
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def line(packed: Path, cli: Callable[..., Result]) -> Callable[..., Result]:
    return lambda *arguments: cli("--home", packed, *arguments)


def test_verify_passes_in_all_depths(line) -> None:
    for depth in ((), ("--quick",)):
        result = line("verify", "mnist", *depth)
        assert result.code == 0, result.err


def test_published_files_are_read_in_place(packed: Path) -> None:
    assert [each for each in (packed / "downloads").rglob("*") if each.is_file()] == []


def test_second_fetch_reads_no_data(packed: Path, shared_data: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    log = packed.parent / "strace.log"
    command = [sys.executable, "-m", "datahub", "fetch", "mnist", "--from", str(shared_data), "--home", str(packed)]
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=open,openat", "-o", str(log), *command], capture_output=True, text=True
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    assert "is packed already" in done.stdout
    opened = [each for each in log.read_text().splitlines() if str(packed) in each or str(shared_data) in each]
    data = [each for each in opened if ".tar" in each or ".parquet" in each or ".gz" in each or "blocks.bin" in each]
    assert data == []
    assert any("dataset.json" in each for each in opened)


def test_training_loop_sees_every_digit_once(packed: Path, shared_data: Path) -> None:
    import datahub
    from datahub.core.settings import Settings

    with datahub.StreamingLoader(
        "mnist", "train", batch_size=500, shuffle=True, settings=Settings(home=packed)
    ) as loader:
        batches = list(loader)
    labels = np.concatenate([batch["label"].numpy() for batch in batches])
    index = np.concatenate([batch["index"].numpy() for batch in batches])
    published = gzip.decompress((shared_data / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    assert np.array_equal(np.sort(index), np.arange(60_000))
    assert np.array_equal(np.bincount(labels), np.bincount(np.frombuffer(published, np.uint8)))
    assert batches[0]["image"].shape == (500, 1, 28, 28)


def test_path_info_and_list_know_it(line, packed: Path) -> None:
    assert line("path", "mnist").out.strip() == str(packed / "datasets" / "mnist" / "1.0" / "published")
    assert str(packed) in line("info", "mnist").out
    local = line("list", "--local", "--json").json
    assert "mnist" in json.dumps(local)
    assert "cifar10" not in json.dumps(local)


def test_a_flipped_byte_is_found_and_repaired(line, packed: Path, shared_data: Path, tmp_path: Path) -> None:
    home = tmp_path / "copy"
    shutil.copytree(packed / "datasets", home / "datasets")
    shard = next((home / "datasets").rglob("mnist-test-000003.tar"))
    with shard.open("r+b") as handle:
        handle.seek(1000)
        byte = handle.read(1)
        handle.seek(1000)
        handle.write(bytes([byte[0] ^ 1]))
    result = line("verify", "mnist", "--home", home, "-q")
    assert result.code == 3
    assert "mnist-test-000003.tar" in result.err
    assert result.err.count("\n") == 1
    again = line("fetch", "mnist", "--from", shared_data, "--home", home, "--replace")
    assert again.code == 0, again.err
    assert line("verify", "mnist", "--home", home).code == 0


def test_missing_shard_is_packed_again_by_fetch(line, packed: Path, shared_data: Path, tmp_path: Path) -> None:
    home = tmp_path / "copy"
    shutil.copytree(packed / "datasets", home / "datasets")
    next((home / "datasets").rglob("mnist-test-000001.tar")).unlink()
    assert line("verify", "mnist", "--quick", "--home", home).code == 3
    assert line("fetch", "mnist", "--from", shared_data, "--home", home).code == 0
    assert line("verify", "mnist", "--quick", "--home", home).code == 0


def test_errors_have_their_exit_codes(cli, shared_data: Path, tmp_path: Path, home: Path) -> None:
    assert cli("path", "mnist").code == 7
    offline = cli("fetch", "cifar10", "--offline")
    assert (offline.code, offline.err.count("\n")) == (7, 1)
    elsewhere = cli("fetch", "cifar10", "--from", shared_data)
    assert elsewhere.code == 4
    assert "cifar-10-python.tar.gz" in elsewhere.err
    lying = tmp_path / "mirror" / "mnist"
    shutil.copytree(shared_data / "mnist", lying)
    (lying / "t10k-labels-idx1-ubyte.gz").write_bytes(b"x" * 4542)
    wrong = cli("fetch", "mnist", "-q", "--from", lying.parent)
    assert (wrong.code, wrong.err.count("\n")) == (3, 1)
    assert "t10k-labels-idx1-ubyte.gz" in wrong.err
    with (lying / "t10k-labels-idx1-ubyte.gz").open("wb") as handle:
        handle.write((shared_data / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes()[:4000])
    truncated = cli("fetch", "mnist", "-q", "--from", lying.parent)
    assert truncated.code == 3
    assert "truncated" in truncated.err
    assert not (home / "datasets" / "mnist").exists()


def test_an_unwritable_home_is_exit_5(cli, tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("fetch", "mnist", "-q", "--from", shared_data, "--home", tmp_path / "file" / "home")
    assert (result.code, result.err.count("\n")) == (5, 1)


def start_fetch(home: Path, shared_data: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "datahub", "fetch", "mnist", "--from", str(shared_data), "--home", str(home), "-q"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.4, 1.2, 2.2])
def test_kill_9_then_again_gives_the_same_bytes(after: float, packed: Path, shared_data: Path, tmp_path: Path) -> None:
    child = start_fetch(tmp_path, shared_data)
    time.sleep(after)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    again = start_fetch(tmp_path, shared_data)
    assert again.wait(timeout=120) == 0
    for whole in sorted((packed / "datasets" / "mnist").rglob("*")):
        if whole.is_file():
            assert (tmp_path / whole.relative_to(packed)).read_bytes() == whole.read_bytes(), whole.name


@pytest.mark.slow
def test_two_fetches_at_once_both_succeed(packed: Path, shared_data: Path, tmp_path: Path) -> None:
    both = [start_fetch(tmp_path, shared_data) for _ in range(2)]
    assert [each.wait(timeout=120) for each in both] == [0, 0]
    mine = tmp_path / "datasets" / "mnist" / "1.0" / "published" / "dataset.json"
    assert mine.read_bytes() == (packed / "datasets" / "mnist" / "1.0" / "published" / "dataset.json").read_bytes()


def test_generated_sources_pack_any_number(cli, home: Path) -> None:
    result = cli("pack", "shapes:train=90,test=30,seed=5", "toy@2.0")
    assert result.code == 0, result.err
    assert cli("verify", "toy", "--deep").code == 0
    assert cli("path", "toy").out.strip().endswith("toy/2.0/published")
    other = cli("pack", "shapes:train=80,test=30,seed=5", "toy@2.0")
    assert (other.code, other.err.count("\n")) == (6, 1)
    assert cli("pack", "shapes:train=80,test=30,seed=5", "toy@2.0", "--replace").code == 0


def test_dry_run_writes_nothing(cli, home: Path, shared_data: Path) -> None:
    result = cli("fetch", "mnist", "--from", shared_data, "--dry-run")
    assert result.code == 0, result.err
    assert "train-images-idx3-ubyte.gz" in result.out
    assert not (home / "datasets").exists()
    assert cli("pack", "shapes:90", "toy", "-n").code == 0
    assert not (home / "datasets").exists()
