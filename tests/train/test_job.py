"""The reference job: resumed runs end like undisturbed ones, on one rank and on several; evaluation counts exactly."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torchvision import models

import datahub
from datahub.core.errors import BadArgument, DigestMismatch, NotInStore
from datahub.core.events import Event, Note
from datahub.core.settings import Settings
from datahub.train import job as jobs
from datahub.train import networks
from datahub.train.config import Job
from tests.store.builder import tiny_variant

NET = "shufflenet_v2_x0_5"
ROOT = Path(__file__).parents[2]


def of(home: Settings, **changes: Any) -> Job:
    facts = {
        "ref": "tiny",
        "model": NET,
        "epochs": 2,
        "batch": 16,
        "augment": "normalize",
        "workers": 1,
        "device": "cpu",
    }
    return Job(**{**facts, **changes})


def state(folder: Path, name: str = "checkpoint.pt") -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / name, weights_only=True)
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run over the tiny set."""
    base = tmp_path_factory.mktemp("whole")
    settings = Settings(home=base / "home")
    tiny_variant(settings.home, splits={"train": 50, "test": 13}, shards=2, size=(32, 32))
    jobs.run(of(settings, folder=base / "run"), settings)
    return base / "run"


def test_the_log_and_the_outcome_agree(home: Settings, tmp_path: Path) -> None:
    heard: list[Event] = []
    outcome = jobs.run(of(home, folder=tmp_path / "a"), home, heard.append)
    assert outcome.finished
    assert [(row.phase, row.epoch) for row in outcome.rows] == [
        ("train", 0), ("evaluate", 0), ("train", 1), ("evaluate", 1),
    ]  # fmt: skip
    assert [row.images for row in outcome.rows] == [48, 13, 48, 13]  # the tail is not trained on, but evaluated
    assert all(0 <= row.wait <= 1 and row.top1 <= row.top5 <= 1 for row in outcome.rows)
    with (tmp_path / "a" / "metrics.csv").open() as handle:
        lines = list(csv.DictReader(handle))
    assert [line["phase"] for line in lines] == ["train", "evaluate"] * 2
    assert float(lines[1]["top1"]) == pytest.approx(outcome.rows[1].top1, abs=1e-5)
    assert sum(isinstance(each, Note) for each in heard) == 4


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_run_taken_up_again_ends_like_an_undisturbed_one(
    home: Settings, tmp_path: Path, whole: Path, steps: int
) -> None:
    first = jobs.run(of(home, folder=tmp_path / "a", steps=steps), home)
    assert not first.finished
    assert state(tmp_path / "a")["step"] == steps
    second = jobs.run(of(home, folder=tmp_path / "a", resume=True, workers=0), home)
    assert second.finished
    expected, found = state(whole), state(tmp_path / "a")
    assert found["step"] == expected["step"] == 6
    assert same(found["model"], expected["model"])
    assert second.rows[-1].loss == pytest.approx(float(_last(whole)["loss"]), rel=1e-5)


def _last(folder: Path) -> dict[str, str]:
    with (folder / "metrics.csv").open() as handle:
        return list(csv.DictReader(handle))[-1]


def test_mixed_samples_are_learnt_from_and_part_of_what_a_run_is(home: Settings, tmp_path: Path) -> None:
    mixed = of(home, folder=tmp_path / "a", steps=2, mixup=0.4, cutmix=1.0)
    row = jobs.run(mixed, home).rows[0]
    plain = jobs.run(of(home, steps=2), home).rows[0]
    assert row.images == plain.images == 32 and row.loss > 0 and row.loss != plain.loss
    with pytest.raises(BadArgument, match=r"mixup was 0\.4, is None"):
        jobs.run(replace(mixed, mixup=None, resume=True), home)
    with pytest.raises(BadArgument, match="alpha=-1"):
        jobs.run(of(home, cutmix=-1), home)


def test_evaluation_counts_every_sample_once(home: Settings, whole: Path) -> None:
    row = jobs.run(of(home, folder=whole, eval_only=True, batch=4), home).rows[0]
    module = networks.build(NET, 3, str(whole / "checkpoint.pt"), home).module.eval()
    with datahub.StreamingLoader("tiny", "test", batch_size=13, transform="normalize", settings=home) as loader:
        batch = next(iter(loader))
    with torch.no_grad():
        scores = module(batch["image"])
    assert row.images == 13
    assert row.top1 == pytest.approx((scores.argmax(1) == batch["label"]).float().mean().item(), abs=1e-6)
    assert row.loss == pytest.approx(F.cross_entropy(scores, batch["label"]).item(), rel=1e-4)
    assert row.top5 == 1.0  # of three classes


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [jobs.rate_at(step / 1000, 0.4) for step in range(1001)]
    assert rates[0] == 0 and max(rates) == pytest.approx(0.4) and rates[-1] == pytest.approx(0, abs=1e-9)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_what_a_run_was_begun_with_may_not_change(home: Settings, tmp_path: Path) -> None:
    jobs.run(of(home, folder=tmp_path / "a", steps=1), home)
    with pytest.raises(BadArgument, match="holds a checkpoint already"):
        jobs.run(of(home, folder=tmp_path / "a"), home)
    with pytest.raises(BadArgument, match=r"seed was 0, is 1.*rate was|rate was.*seed was 0, is 1"):
        jobs.run(of(home, folder=tmp_path / "a", resume=True, seed=1, rate=0.5), home)
    (tmp_path / "a" / "checkpoint.pt").write_bytes(b"half")
    with pytest.raises(BadArgument, match="is damaged, or no checkpoint"):
        jobs.run(of(home, folder=tmp_path / "a", resume=True), home)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "resnet81"}, "did you mean"),
        ({"model": "fasterrcnn_resnet50_fpn"}, "not an image classifier"),
        ({"amp": "int8"}, "known: off, bf16, fp16"),
        ({"device": "tpu"}, "device"),
        ({"weights": "IMAGENET1K_V9", "model": "resnet18"}, "known: IMAGENET1K_V1"),
        ({"resume": True}, "where it is with --dir"),
        ({"eval_only": True}, "no model to evaluate"),
        ({"held_out": "dev"}, "dev"),
        ({"epochs": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(home: Settings, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(datahub.errors.UsageError, match=said) as caught:
        jobs.run(of(home, **changes), home)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_is_not_here(settings: Settings) -> None:
    with pytest.raises(NotInStore):
        jobs.run(of(settings, ref="mnist"), settings)


def hashed(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True)
    path = folder / f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    path.write_bytes(data)
    return path


def test_published_weights_come_verified_from_a_mirror(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    published = models.get_model(NET, num_classes=1000).state_dict()
    torch.save(published, tmp_path / "net.pth")
    path = hashed(tmp_path / "site" / "weights", (tmp_path / "net.pth").read_bytes())
    known = models.get_model_weights(NET)["IMAGENET1K_V1"].value
    monkeypatch.setattr(known, "url", f"https://gone.invalid/{path.name}", raising=False)
    at = replace(home, from_=str(tmp_path / "site"))
    heard: list[Event] = []
    found = networks.build(NET, 1000, "DEFAULT", at, heard.append)
    assert same(found.module.state_dict(), published)
    assert not [each for each in heard if isinstance(each, Note)]
    assert found.evaluating is not None
    found = networks.build(NET, 3, "DEFAULT", at, heard.append)
    assert found.module.fc.out_features == 3
    assert torch.equal(found.module.state_dict()["conv1.0.weight"], published["conv1.0.weight"])
    assert "1000 classes: the head starts untrained" in "".join(str(each) for each in heard)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DigestMismatch):
        networks.build(NET, 3, "DEFAULT", at)


def test_weights_of_another_model_are_refused(home: Settings, tmp_path: Path) -> None:
    torch.save(models.get_model("squeezenet1_1", num_classes=3).state_dict(), tmp_path / "other.pth")
    with pytest.raises(BadArgument, match="does not fit"):
        networks.build(NET, 3, str(tmp_path / "other.pth"), home)
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BadArgument, match="tensors alone"):
        networks.build(NET, 3, str(tmp_path / "code.pth"), home)


def torchrun(ranks: int, home: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--master-port=0"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "datahub", "train", "tiny"]
    command += ["--model", NET, "--epochs", "2", "--batch-size", "16", "--augment", "normalize", "--device", "cpu"]
    environment = {**os.environ, "DATAHUB_HOME": str(home.home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--workers", "1", *arguments], env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow
def test_two_ranks_taken_up_again_end_like_two_undisturbed_ones(home: Settings, tmp_path: Path) -> None:
    for arguments in (["--dir", "a"], ["--dir", "b", "--steps", "2"], ["--dir", "b", "--resume"]):
        done = torchrun(2, home, "--dir", str(tmp_path / arguments[1]), *arguments[2:])
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("train     epoch") == 1  # one rank speaks for both
    a, b = state(tmp_path / "a"), state(tmp_path / "b")
    assert a["step"] == b["step"] == 6
    assert same(a["model"], b["model"])
    one = jobs.run(of(home, folder=tmp_path / "a", eval_only=True), home).rows[0]
    assert one.images == 13
    assert float(_last(tmp_path / "a")["top1"]) == pytest.approx(one.top1, abs=1e-5)
    assert float(_last(tmp_path / "a")["loss"]) == pytest.approx(one.loss, rel=1e-3)
