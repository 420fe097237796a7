"""Real torchrun jobs over gloo: resumed on other world sizes, killed, and still the batches of one rank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from datahub.loader.streaming import StreamingLoader
from tests.loader.elastic_job import BATCH, arguments
from tests.store.builder import tiny_variant

ROOT = Path(__file__).parents[2]
STEPS = 5


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    tiny_variant(folder, splits={"train": 50}, shards=3, block=4)
    return folder


@pytest.fixture(scope="module")
def whole(home) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """An epoch on one rank."""
    with StreamingLoader(**arguments(home, num_workers=0)) as loader:
        return [(dict(batch), dict(batch.state)) for batch in loader]


def torchrun(ranks: int, home: Path, out: Path, *tasks: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += ["--module", "tests.loader.elastic_job", str(home), str(out), json.dumps(tasks)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240)


def side_by_side(out: Path, name: str, ranks: int, expected: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """The ranks' batches, laid side by side, are ``expected``, bit for bit."""
    parts = [torch.load(out / f"{name}-{rank}.pt", weights_only=True) for rank in range(ranks)]
    assert [len(part) for part in parts] == [len(expected)] * ranks
    for step, (whole, state) in enumerate(expected):
        mine = [part[step][0] for part in parts]
        for field in ("image", "label", "index"):
            joined = torch.cat([each[field][each["valid"]] for each in mine])
            assert joined.dtype == whole[field].dtype and torch.equal(joined, whole[field]), (step, field)
        assert {each["n_global"] for each in mine} == {whole["n_global"]}
        assert all(len(each["index"]) >= 1 for each in mine)
        assert all(part[step][1] == state for part in parts)


@pytest.mark.slow
def test_resumed_and_killed_on_other_world_sizes(home, whole, tmp_path):
    assert len(whole) == STEPS and [batch["n_global"] for batch, _ in whole] == [BATCH] * 4 + [2]
    assert sorted(row for batch, _ in whole for row in batch["index"].tolist()) == list(range(50))
    with StreamingLoader(**arguments(home)) as loader:
        for _ in islice(loader, 2):
            torch.save(loader.state_dict(), tmp_path / "one.pt")
    after_two = {"state": str(tmp_path / "one.pt")}
    after_one = {"checkpoint": str(tmp_path / "checkpoint")}

    killed = torchrun(
        2,
        home,
        tmp_path,
        {"name": "two", **after_two, "threads": 2},
        {"name": "killed", "save_after": 1, "kill_after": 3},
    )
    assert killed.returncode != 0 and "SIGKILL" in killed.stderr
    side_by_side(tmp_path, "two", 2, whole[2:])
    before = torch.load(tmp_path / "killed-1.pt", weights_only=True)
    assert [state["position"] for _, state in before] == [12, 24, 36], "it died in its epoch"

    for ranks, tasks in (
        (3, [{"name": "a", **after_one}, {"name": "b", **after_two, "processes": 2}]),
        (4, [{"name": "a", **after_one, "threads": 2}, {"name": "b", **after_two, "threads": 0}]),
    ):
        out = tmp_path / str(ranks)
        out.mkdir()
        done = torchrun(ranks, home, out, *tasks)
        assert done.returncode == 0, done.stderr[-3000:]
        side_by_side(out, "a", ranks, whole[1:])
        side_by_side(out, "b", ranks, whole[2:])
