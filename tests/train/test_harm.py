"""The reference job where something is wrong: one error that says it, and a run that can be taken up again."""

from __future__ import annotations

import csv
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torchvision import models

from datahub.core import atomic
from datahub.core.errors import BadArgument, DigestMismatch, DiskFull, NotReadable, UsageError, from_oserror
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.store.dataset import Dataset
from datahub.tensor.presets import GRAY
from datahub.tensor.transforms import Normalize
from datahub.train import checkpoint, data, networks
from datahub.train import job as jobs
from datahub.train.config import Job
from datahub.train.data import held_out, training
from datahub.train.networks import Network
from tests.store.builder import tiny_variant

NET = "shufflenet_v2_x0_5"
UNKNOWN = Network(torch.nn.Identity(), None)
MEASURED = ("phase", "epoch", "step", "images", "loss", "top1", "top5", "rate")


def of(**changes: Any) -> Job:
    facts = {"ref": "tiny", "model": NET, "epochs": 2, "batch": 16, "augment": "normalize", "workers": 0}
    return Job(**{**facts, "device": "cpu", **changes})


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as handle:
        return [{name: row[name] for name in MEASURED} for row in csv.DictReader(handle)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("whole")
    settings = Settings(home=base / "home")
    tiny_variant(settings.home, splits={"train": 50, "test": 13}, shards=2, size=(32, 32))
    jobs.run(of(folder=base / "run"), settings)
    return base / "run"


# -- the log goes on as if nothing had been ----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_the_log_of_a_run_taken_up_again_is_that_of_an_undisturbed_one(
    home: Settings, tmp_path: Path, whole: Path, steps: int
) -> None:
    jobs.run(of(folder=tmp_path, steps=steps), home)
    jobs.run(of(folder=tmp_path, resume=True), home)
    assert logged(tmp_path) == logged(whole)


def test_what_a_killed_run_wrote_after_its_last_checkpoint_comes_once(
    home: Settings, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Any, epoch: int) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(jobs._Trainer, "_evaluate", killed)
        jobs.run(of(folder=tmp_path, save_every=2), home)
    assert [row["phase"] for row in logged(tmp_path)] == ["train"]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    jobs.run(of(folder=tmp_path, resume=True), home)
    assert logged(tmp_path) == logged(whole)


def test_one_run_writes_into_a_folder(home: Settings, tmp_path: Path) -> None:
    with (
        checkpoint.alone(tmp_path),
        pytest.raises(BadArgument, match=r"process \d+ on .* is training there; let it finish"),
    ):
        jobs.run(of(folder=tmp_path), home)
    jobs.run(of(folder=tmp_path, steps=1), home)
    assert not (tmp_path / checkpoint.LOCK).exists()


def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full(path: Path) -> Iterator[BinaryIO]:
        try:
            with Path("/dev/full").open("wb", buffering=0) as handle:
                yield handle
        except OSError as error:
            raise from_oserror(error, path, writing=True) from error

    monkeypatch.setattr(atomic, "writing", full)
    with pytest.raises(DiskFull, match="no space"):
        checkpoint.save(tmp_path / "checkpoint.pt", {"model": {"a": torch.zeros(1 << 16)}})


# -- models, weights and images that do not go together ----------------------------------------------------------------


def test_a_checkpoint_of_another_model_or_other_classes_is_refused(home: Settings, tmp_path: Path, whole: Path) -> None:
    for other, odd in (("squeezenet1_1", "classifier.1.bias"), (NET, "fc.bias")):
        torch.save({"model": models.get_model(other, num_classes=7).state_dict()}, tmp_path / checkpoint.FILENAME)
        with pytest.raises(BadArgument, match=f"is not of a {NET} for these classes: {odd} does not fit"):
            jobs.run(of(folder=tmp_path, eval_only=True), home)
    assert jobs.run(of(folder=whole, eval_only=True), home).rows[0].images == 13


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": float("nan")}, "rate=nan"),
        ({"rate": float("inf")}, "rate=inf"),
        ({"rate": 0.0}, "must be positive"),
        ({"steps": 0}, "at least 1"),
        ({"batch": 1}, "one image of it"),
        ({"model": "squeezenet1_1", "ref": "small"}, "takes no images of 8 x 8: "),
        ({"model": "vit_b_16"}, "takes no images of 32 x 32: Wrong image height"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(home: Settings, changes: dict[str, Any], said: str) -> None:
    tiny_variant(home.home, "small", splits={"train": 20, "test": 6}, size=(8, 8))
    with pytest.raises(UsageError, match=said) as caught:
        jobs.run(of(**changes), home)
    assert "\n" not in str(caught.value)


def test_evaluating_says_it_too(home: Settings, tmp_path: Path) -> None:
    tiny_variant(home.home, "small", splits={"train": 20, "test": 6}, size=(8, 8))
    torch.save(models.get_model("squeezenet1_1", num_classes=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(BadArgument, match="takes no images of 8 x 8"):
        jobs.run(of(ref="small", model="squeezenet1_1", weights=str(tmp_path / "w.pth"), eval_only=True), home)


def test_damaged_files_are_told_as_such_wherever_the_damage_is(home: Settings, tmp_path: Path) -> None:
    tensors = models.get_model(NET, num_classes=3).state_dict()
    old, new = tmp_path / "old.pth", tmp_path / "new.pth"
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    torch.save(tensors, new)
    rng, refused, bad = random.Random(5), 0, tmp_path / "bad.pth"
    for case in range(120):
        data = bytearray((old, new)[case % 2].read_bytes())
        for _ in range(1 << rng.randrange(7)):
            data[rng.randrange(4000)] ^= 1 << rng.randrange(8)
        bad.write_bytes(data[: rng.randrange(len(data))] if case % 5 == 0 else data)
        for use in (lambda: networks.build(NET, 3, str(bad), home), lambda: checkpoint.load(bad, {})):
            try:
                use()
            except (BadArgument, NotReadable) as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 150


def test_a_file_whose_name_ends_in_a_digest_must_have_it(home: Settings, tmp_path: Path) -> None:
    torch.save(models.get_model(NET, num_classes=3).state_dict(), tmp_path / "net.pth")
    written = (tmp_path / "net.pth").read_bytes()
    honest = tmp_path / f"net-{hashlib.sha256(written).hexdigest()[:8]}.pth"
    for path in (honest, tmp_path / "net-20260131.pth", tmp_path / "net.pth"):  # a date is no digest
        path.write_bytes(written)
        networks.build(NET, 3, str(path), home)
    lying = tmp_path / "net-deadbeef.pth"
    lying.write_bytes(written)
    with pytest.raises(DigestMismatch, match="expected sha256:deadbeef"):
        networks.build(NET, 3, str(lying), home)


# -- what images become where nobody says it ---------------------------------------------------------------------------


def shapes_of(dataset: Dataset, settings: Settings, network: Network) -> tuple[list[int], list[int]]:
    job = of(ref=str(dataset.ref), augment=None, batch=4)
    with training(job, dataset, settings) as learnt, held_out(job, dataset, settings, network) as seen:
        return list(next(iter(learnt))["image"].shape[1:]), list(next(iter(seen))["image"].shape[1:])


@pytest.mark.parametrize(
    ("size", "channels", "learnt", "seen"),
    [
        ((32, 32), 3, [3, 32, 32], [3, 32, 32]),
        ((64, 64), 3, [3, 64, 64], [3, 64, 64]),  # not cropped to CIFAR's size
        ((24, 20), 3, [3, 20, 24], [3, 20, 24]),
        ((28, 28), 1, [1, 28, 28], [1, 28, 28]),
        ((80, 70), 3, [3, 224, 224], [3, 224, 224]),
        ((80, 70), 1, [1, 224, 224], [1, 224, 224]),
    ],
)
def test_images_are_learnt_at_the_size_that_they_are_evaluated_at(
    settings: Settings, size: tuple[int, int], channels: int, learnt: list[int], seen: list[int]
) -> None:
    tiny_variant(settings.home, splits={"train": 8, "test": 4}, size=size, channels=channels)
    dataset = open_dataset("tiny", settings)
    assert shapes_of(dataset, settings, UNKNOWN) == (learnt, seen)


def test_gray_images_are_what_published_weights_expect(settings: Settings) -> None:
    tiny_variant(settings.home, splits={"train": 8, "test": 4}, size=(80, 70), channels=1)
    published = models.get_model_weights(NET)["IMAGENET1K_V1"].transforms()
    dataset = open_dataset("tiny", settings)
    _, seen = shapes_of(dataset, settings, Network(torch.nn.Identity(), published))
    assert seen == [3, 224, 224]
    with training(of(augment=None, batch=4), dataset, settings) as loader:
        parts = loader.recipe.transform.transforms  # type: ignore[union-attr]
    assert isinstance(parts[-1], Normalize) and (parts[-1].mean, parts[-1].std) == GRAY


def test_a_set_without_moments_is_trained_on_all_the_same(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "moments", lambda split: None)
    tiny_variant(settings.home, splits={"train": 8, "test": 4}, size=(32, 32))
    dataset = open_dataset("tiny", settings)
    assert shapes_of(dataset, settings, UNKNOWN) == ([3, 32, 32], [3, 32, 32])
