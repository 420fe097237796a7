"""A split in torch's DataLoader: batches by index, read together, every image decoded once."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset, default_collate

from datahub.core.errors import DamagedSample, VerificationError
from datahub.core.settings import Settings
from datahub.loader import pieces
from datahub.loader.opening import open_dataset
from datahub.store.sample import Sample
from datahub.stream.source import LocalShards
from tests.loader.conftest import image, label
from tests.pack.things import check as check_thing
from tests.pack.things import write_things
from tests.store.builder import label as wanted_label


def check(batch: dict[str, Any]) -> list[int]:
    rows: list[int] = batch["index"].tolist()
    assert torch.equal(batch["image"], torch.stack([image("train", row) for row in rows]))
    assert batch["label"].tolist() == [label("train", row) for row in rows]
    assert batch["weight"].tolist() == [row * 3 for row in rows]
    assert all(isinstance(each, str) for each in (*batch["key"], *batch["source"]))
    return rows


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often images are decoded, and shards read."""
    seen = {"decoded": 0, "reads": 0}

    def count(name: str, of: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            seen[name] += size(*arguments)
            return of(*arguments, **options)

        return run

    monkeypatch.setattr(pieces, "decode_rows", count("decoded", pieces.decode_rows, lambda data, *_: len(data)))
    monkeypatch.setattr(LocalShards, "read", count("reads", LocalShards.read, lambda *_: 1))
    return seen


def test_every_image_of_a_batch_is_decoded_once_and_neighbours_are_read_together(
    home: Settings, counted: dict[str, int]
) -> None:
    split = open_dataset("tiny", home)["train"]
    loader = DataLoader(split, batch_size=10)  # type: ignore[arg-type]
    assert [row for batch in loader for row in check(batch)] == list(range(50))
    assert counted["decoded"] == 50
    assert 0 < counted["reads"] < 50 // 2
    counted["decoded"] = 0
    sampler = BatchSampler(RandomSampler(split), 8, drop_last=False)  # type: ignore[arg-type]
    found = [check(batch) for batch in DataLoader(split, batch_sampler=sampler)]  # type: ignore[arg-type]
    assert sorted(row for rows in found for row in rows) == list(range(50)) and counted["decoded"] == 50


def test_workers_copies_and_subsets_hand_over_the_same(home: Settings) -> None:
    split = open_dataset("tiny", home)["train"]
    check(next(iter(DataLoader(split, batch_size=10))))  # type: ignore[arg-type]
    loader = DataLoader(split, batch_size=10, num_workers=2)  # type: ignore[arg-type]
    assert [row for batch in loader for row in check(batch)] == list(range(50))
    part = DataLoader(Subset(split, [7, 3, 40]), batch_size=3)  # type: ignore[arg-type]
    assert [check(batch) for batch in part] == [[7, 3, 40]]
    for copy in (pickle.loads(pickle.dumps(split)), split):
        assert check(default_collate(copy.__getitems__([3, 1]))) == [3, 1]


def test_samples_by_index_and_by_batch_are_the_same(settings: Settings) -> None:
    write_things(settings, count=9)
    split = open_dataset("things", settings)["train"]
    for found, index in zip(split.__getitems__([4, -1, 0]), (4, 8, 0), strict=True):
        single = split[index]
        assert set(found) == set(single) and found["index"] == index == single["index"]
        assert torch.equal(found["image"], single["image"]) and found["image"].dtype == torch.uint8
        assert (
            type(found["boxes"]) is type(single["boxes"]) and found["boxes"].canvas_size == single["boxes"].canvas_size
        )
        number = int(found["source"][3:])
        check_thing(found, number)
        check_thing(single, number)


def test_what_is_not_there_and_what_is_damaged(home: Settings) -> None:
    split = open_dataset("tiny", home)["train"]
    with pytest.raises(IndexError, match="50 samples, not one at 50"):
        split.__getitems__([1, 50])
    assert split.__getitems__([]) == []
    row = split.locate[3]
    with split.shards[int(row["shard"])].open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(b"x" * 40)
    with pytest.raises(DamagedSample, match=split.key(3)):
        split.__getitems__([2, 3])
    with pytest.raises(VerificationError, match=split.key(3)):
        list(DataLoader(split, batch_size=10, num_workers=1))  # type: ignore[arg-type]


def test_a_sample_decodes_its_image_once(home: Settings) -> None:
    dataset = open_dataset("tiny", home)
    decode, seen = dataset.decode, []
    assert decode is not None
    dataset.decode = lambda data: (seen.append(1), decode(data))[1]
    sample = dataset["train"][5]
    assert isinstance(sample, Sample) and sample["image"] is sample["image"] and seen == [1]
    assert np.array_equal(sample["label"], wanted_label("train", 5))
