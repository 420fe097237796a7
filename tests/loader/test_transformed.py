"""A split map-style with a transform: drawn by seed, epoch and index, whoever asks, in whatever batch."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

from datahub import transforms as T
from datahub.core.errors import BadArgument, UsageError, VerificationError
from datahub.core.settings import Settings
from datahub.loader.mapped import Transformed
from datahub.loader.opening import open_dataset
from datahub.loader.streaming import StreamingLoader
from datahub.store import dataset as store
from datahub.tensor.draws import Draws
from tests.loader.conftest import image, label, same
from tests.pack.things import write_things

STRONG = T.Compose([T.RandomCrop(6, 2), T.RandomHorizontalFlip(), T.RandAugment(2, 20), T.Scale()])


def tiny(home: Settings, transform: Any = STRONG, **options: Any) -> Transformed:
    found = open_dataset("tiny", home)["train"].with_transform(transform, **options)
    assert isinstance(found, Transformed)
    return found


def expected(transform: T.BatchTransform, seed: int, epoch: int, index: int) -> torch.Tensor:
    made = transform(image("train", index)[None], None, Draws(seed, epoch, np.array([index])))
    return made[0]


@limits(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(-50, 49), min_size=1, max_size=9), epoch=st.integers(0, 5), seed=st.integers(0, 9))
def test_a_sample_hangs_on_seed_epoch_and_index_alone(home: Settings, rows: list[int], epoch: int, seed: int) -> None:
    dataset = tiny(home, seed=seed)
    dataset.set_epoch(epoch)
    assert dataset.epoch == epoch and len(dataset) == 50
    for found, row in zip(dataset.__getitems__(rows), rows, strict=True):
        assert torch.equal(found["image"], expected(STRONG, seed, epoch, row % 50))
        assert found["label"] == label("train", row % 50) and found["index"] == row % 50
        assert set(found) == {"image", "label", "weight", "index", "key", "source"}
        assert same(found, dataset[row])


def test_draws_are_those_of_a_loader_at_these_positions(home: Settings) -> None:
    """Without shuffling, a loader's positions are the rows."""
    with StreamingLoader("tiny", batch_size=50, seed=4, transform=STRONG, settings=home, num_workers=0) as loader:
        for epoch in range(2):
            batch = loader.at(epoch, 0)
            dataset = tiny(home, seed=4)
            dataset.set_epoch(epoch)
            assert batch["index"].tolist() == list(range(50))
            assert torch.equal(torch.stack([each["image"] for each in dataset.__getitems__(range(50))]), batch["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_and_its_workers_are_told_of_the_epoch(home: Settings, workers: int) -> None:
    dataset = tiny(home, seed=1, fields=("image", "index"))
    options: dict[str, Any] = {"persistent_workers": True, "timeout": 60} if workers else {}
    loader = DataLoader(dataset, batch_size=8, sampler=RandomSampler(dataset), num_workers=workers, **options)
    for epoch in (0, 3, 4):
        dataset.set_epoch(epoch)
        seen = []
        for images, indices in loader:
            assert isinstance(images, torch.Tensor) and images.dtype == torch.float32
            seen += indices.tolist()
            for found, index in zip(images, indices.tolist(), strict=True):
                assert torch.equal(found, expected(STRONG, 1, epoch, index))
        assert sorted(seen) == list(range(50))


def test_copies_subsets_and_spawned_workers(home: Settings) -> None:
    dataset = tiny(home, seed=2, fields=("image", "label"))
    wanted = dataset.__getitems__([7, 3])
    assert same(pickle.loads(pickle.dumps(dataset)).__getitems__([7, 3]), wanted)
    part = DataLoader(Subset(dataset, [7, 3]), batch_size=2, num_workers=1, multiprocessing_context="spawn")
    (batch,) = list(part)
    assert torch.equal(batch[0], torch.stack([image for image, _ in wanted]))
    assert batch[1].tolist() == [label for _, label in wanted]
    assert dataset.__getitems__([]) == [] and wanted[0][0].dtype == torch.float32
    half = tiny(home, "normalize", dtype=torch.float16)[5]
    assert half["image"].dtype == torch.float16


def test_annotations_follow_and_callables_are_called(settings: Settings) -> None:
    write_things(settings, count=9)
    split = open_dataset("things", settings)["train"]
    chain = T.Compose([T.RandomResizedCrop(24), T.RandomRotation(30), T.SanitizeBoundingBoxes(), T.MaskFill(255)])
    dataset = split.with_transform(chain, seed=5)
    loader = StreamingLoader(
        "things", batch_size=9, seed=5, transform=chain, settings=settings, num_workers=0,
        fields=("index", "image", "boxes", "points", "masks", "mask", "kind"),
    )  # fmt: skip
    with loader:
        index, *columns = next(iter(loader))
    names = loader.recipe.fields
    assert names is not None and index.tolist() == list(range(9))
    for row in range(9):
        sample = dataset[row]
        for name, column in zip(names[1:], columns, strict=True):
            assert torch.equal(sample[name], column[row]) and type(sample[name]) is type(column[row])
        assert sample["boxes"].canvas_size == (24, 24) and isinstance(sample["masks"], tv_tensors.Mask)
    called = split.with_transform(v2.Resize((5, 7)), fields=("image", "raw"))
    assert [tuple(each[0].shape) for each in called.__getitems__([1, 2])] == [(3, 5, 7)] * 2
    plain = split.with_transform(None)
    assert torch.equal(plain[3]["image"], split[3]["image"]) and torch.equal(plain[3]["boxes"], split[3]["boxes"])
    ragged = split.with_transform(T.Resize(10)).__getitems__([0, 1, 2])
    assert [min(each["image"].shape[1:]) for each in ragged] == [10] * 3
    with pytest.raises(BadArgument, match="sees images alone, and boxes would not follow"):
        split.with_transform(lambda image: image)


@pytest.mark.parametrize(
    ("transform", "options", "reason"),
    [
        (T.MixUp(), {}, "MixUp.*mixes the samples of a batch; use StreamingLoader"),
        ("nope", {}, "is not a preset"),
        (5, {}, "cannot be called"),
        (None, {"dtype": torch.float16}, "only a preset or a transform"),
        (None, {"seed": 0.5}, "seed=0.5: must be a whole number"),
        (None, {"fields": ("image", "labl")}, "labl.*is not a field"),
        (None, {"fields": "image"}, "not a tuple of names"),
        (None, {"fields": ("image", "valid")}, "valid.*of a batch's rows"),
    ],
)
def test_what_cannot_be_is_told_where_it_is_asked_for(
    home: Settings, transform: Any, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadArgument, match=reason):
        tiny(home, transform, **options)


def test_wrong_epochs_rows_and_readers(home: Settings) -> None:
    dataset = tiny(home)
    for epoch in (-1, 1.5, True):
        with pytest.raises(BadArgument, match="epoch"):
            dataset.set_epoch(epoch)  # type: ignore[arg-type]
    for row in (50, -51):
        with pytest.raises(IndexError, match=f"50 samples, not one at {row}"):
            dataset[row]
    with pytest.raises(UsageError, match=r"open it with datahub.open\(REF\)"):
        store.open_dataset("tiny", home)["train"].with_transform(STRONG)
    split = dataset.split
    row = split.locate[3]
    with split.shards[int(row["shard"])].open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(b"x" * 40)
    with pytest.raises(VerificationError, match=split.key(3)):
        list(DataLoader(dataset, batch_size=10, num_workers=1))
