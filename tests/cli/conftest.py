"""Running the command line: in this process for speed, as a subprocess where signals or imports matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datahub.cli.app import root, run


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of its own, and none of the machine's DATAHUB_ variables."""
    for name in [each for each in os.environ if each.startswith("DATAHUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATAHUB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*arguments: str) -> Result:
        capfd.readouterr()
        code = run(root, [str(each) for each in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def process(home: Path) -> Callable[..., Result]:
    def call(*arguments: str) -> Result:
        command = [sys.executable, "-m", "datahub", *(str(each) for each in arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        return Result(done.returncode, done.stdout, done.stderr)

    return call
