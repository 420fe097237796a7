"""verify, path, rm, gc and export as a person types them."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from datahub.cli import rm
from tests.cli.conftest import Result, cli, home  # noqa: F401 - fixtures
from tests.store.builder import damaged, names, tiny_variant

Cli = Callable[..., Result]


@pytest.fixture
def packed(home: Path) -> Path:  # noqa: F811
    return tiny_variant(home)


@pytest.mark.parametrize("depth", [(), ("--quick",), ("--deep",), ("--deep", "-j", "3")])
def test_verify_of_a_whole_variant(cli: Cli, packed: Path, depth: tuple[str, ...]) -> None:  # noqa: F811
    result = cli("verify", "tiny", *depth)
    assert (result.code, result.out.count("\n")) == (0, 1)
    assert result.out.startswith("tiny@1.0/published is whole: 16 files")
    document = cli("verify", "tiny", *depth, "--json").json
    assert (document["ref"], document["files"]) == ("tiny@1.0/published", 16)
    assert document["depth"] == {"--quick": "quick", "--deep": "deep"}.get("".join(depth[:1]), "digests")


def test_verify_of_a_damaged_one_is_one_line_and_exit_3(cli: Cli, packed: Path) -> None:  # noqa: F811
    damaged(packed / "tiny-train-000000.tar", 3000)
    (packed / "README.md").unlink()
    result = cli("verify", "tiny")
    assert (result.code, result.err.count("datahub: "), result.out) == (3, 1, "")
    assert "README.md: missing" in result.err and "tiny-train-000000.tar: changed in block 0" in result.err
    assert json.loads(cli("verify", "tiny", "--json").err)["error"] == "StoreDamaged"
    assert cli("verify", "tiny", "--quick", "--deep").code == 2


def test_records_that_cannot_be_read(cli: Cli, packed: Path) -> None:  # noqa: F811
    (packed / "dataset.json").write_text('{"schema": 99}')
    result = cli("verify", "tiny")
    assert (result.code, "upgrade datahub" in result.err) == (3, True)
    assert cli("path", "tiny").out.strip() == str(packed)
    assert cli("rm", "tiny").code == 0
    assert cli("path", "tiny").code == 7


@pytest.mark.parametrize("command", ["verify", "path", "rm", "export"])
def test_what_is_not_packed_is_exit_7(cli: Cli, packed: Path, command: str, tmp_path: Path) -> None:  # noqa: F811
    more = [str(tmp_path / "out")] if command == "export" else []
    result = cli(command, "mnist", *more)
    assert (result.code, result.err.count("\n")) == (7, 1)
    assert "datahub fetch mnist" in result.err
    assert cli(command, "Bad Name", *more).code == 2
    assert "did you mean mnist" in cli(command, "mnits", *more, "--offline").err


def test_path(cli: Cli, packed: Path) -> None:  # noqa: F811
    assert cli("path", "tiny").out == f"{packed}\n"
    assert cli("path", "tiny@1.0/published", "--json").json == {"ref": "tiny@1.0/published", "path": str(packed)}


def test_rm(cli: Cli, packed: Path) -> None:  # noqa: F811
    dry = cli("rm", "tiny", "-n")
    assert (dry.code, dry.out.splitlines()[0]) == (0, f"would remove {packed}")
    assert packed.exists()
    document = cli("rm", "tiny", "--json").json
    assert (document["paths"], document["removed"]) == ([str(packed)], True)
    assert not packed.exists()


def test_rm_of_a_large_one_asks(cli: Cli, packed: Path, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(rm, "LARGE", 1000)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    result = cli("rm", "tiny")
    assert (result.code, "-y" in result.err) == (2, True)
    assert packed.exists()
    assert cli("rm", "tiny", "-n").code == 0
    assert cli("rm", "tiny", "-y").code == 0
    assert not packed.exists()


def test_rm_leaves_read_only_stores(cli: Cli, packed: Path, monkeypatch, tmp_path: Path) -> None:  # noqa: F811
    shared = tiny_variant(tmp_path / "shared")
    monkeypatch.setenv("DATAHUB_STORES", str(tmp_path / "shared"))
    result = cli("rm", "tiny", "-y")
    assert (result.code, "read-only store" in result.err) == (5, True)
    assert shared.exists() and packed.exists()


def test_gc(cli: Cli, packed: Path, home: Path) -> None:  # noqa: F811
    assert "0 leftovers" in cli("gc").out
    part = home / "downloads" / "tiny" / "1.0" / "images.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1234))
    os.utime(part, (time.time() - 7200,) * 2)
    assert "0 leftovers" in cli("gc").out
    dry = cli("gc", "--older-than", "1", "-n", "--json").json
    assert dry == {
        "leftovers": [{"path": str(part), "kind": "partial download", "bytes": 1234}],
        "bytes": 1234,
        "removed": False,
    }
    assert part.exists()
    done = cli("gc", "--older-than", "1")
    assert "1.2 kB in 1 leftovers removed" in done.out and str(part) in done.out
    assert not part.exists()
    assert packed.exists()


def test_export(cli: Cli, packed: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "out"
    assert "18 files" in cli("export", "tiny", str(out), "-n").out
    assert not out.exists()
    assert cli("export", "tiny", str(out)).code == 0
    assert names(out) == names(packed)
    assert cli("export", "tiny", str(out), "--json").json["files"] == 0
    later = cli("export", "tiny", str(out), "--as", "hf")
    assert (later.code, "not supported by this version" in later.err) == (2, True)
    (out / "extra").write_text("")
    assert cli("export", "tiny", str(out)).code == 2
