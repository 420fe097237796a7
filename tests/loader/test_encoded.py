"""Batches of encoded bytes: what stands in the shards, and nothing decoded for it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import datahub
from datahub.core.errors import BadArgument, StoreDamaged
from datahub.loader import pieces
from datahub.loader.streaming import StreamingLoader
from datahub.loader.work import READ_BYTES
from tests.loader.conftest import image, seen
from tests.store.builder import label, tiny_variant


@pytest.fixture
def nothing_decodes(monkeypatch):
    def refuse(*_):
        raise AssertionError("an image was decoded")

    for name in ("decode_each", "decode_rows"):
        monkeypatch.setattr(pieces, name, refuse)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_bytes_are_those_of_the_sample_and_nothing_is_decoded(make, nothing_decodes, workers, shuffle):
    loader = make(fields=("encoded", "label", "index", "valid"), num_workers=workers, shuffle=shuffle)
    rows = []
    for encoded, labels, index, valid in loader:
        assert isinstance(encoded, list) and {type(data) for data in encoded} == {bytes}
        assert encoded == [loader.split[row].encoded for row in index.tolist()]
        assert labels.tolist() == [label("train", row) for row in index.tolist()] and valid.all()
        rows += index.tolist()
    assert sorted(rows) == list(range(50)) and (rows == list(range(50))) is not shuffle
    assert loader.stats()["bytes"] == sum(len(loader.split[row].encoded) for row in range(50))
    assert loader.stats()["decode_seconds"] == 0


def test_beside_the_image_where_both_are_asked_for(make):
    loader = make(fields=("encoded", "image", "index"), shuffle=True)
    for encoded, images, index in loader:
        assert torch.equal(images, torch.stack([image("train", row) for row in index.tolist()]))
        assert encoded == [loader.split[row].encoded for row in index.tolist()]


def test_in_the_dicts_that_collate_gets(make, nothing_decodes):
    loader = make(fields=("encoded", "label", "index"), collate=lambda samples: samples, num_workers=2)
    samples = [sample for batch in loader for sample in batch]
    assert [sample["encoded"] for sample in samples] == [loader.split[row].encoded for row in range(50)]
    assert {tuple(sample) for sample in samples} == {("encoded", "label", "index")}


def test_they_are_not_in_a_usual_batch(make):
    assert "encoded" not in next(iter(make()))


def test_a_rank_left_empty_gets_a_filler(make):
    loader = make(fields=("encoded", "valid"), global_batch_size=48, topology=datahub.Topology(0, 24))
    *_, (encoded, valid) = loader
    assert valid.tolist() == [False] and len(encoded) == 1 and encoded[0].startswith(b"\x89PNG")


def test_every_rank_fills_static_shapes(make):
    shown = []
    for rank in range(3):
        topology = datahub.Topology(rank, 3)
        loader = make(fields=("encoded", "index", "valid"), global_batch_size=32, topology=topology, static_shapes=True)
        for encoded, index, valid in loader:
            assert len(encoded) == len(index) == 11
            assert encoded == [loader.split[row].encoded for row in index.tolist()]
            shown.append({"index": index, "valid": valid})
    assert sorted(seen(shown)) == list(range(50))


def test_a_damaged_image_is_still_handed_out_as_it_is(make):
    loader = make(fields=("encoded", "index"))
    row = loader.split.locate[20]
    with loader.split.shards[int(row["shard"])].open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(b"not an image")
    found = {int(i): data for encoded, index in loader for data, i in zip(encoded, index, strict=True)}
    assert found[20].startswith(b"not an image") and len(found) == 50


def test_a_shard_cut_short_is_an_error_with_its_name(make):
    loader = make(fields=("encoded",), num_workers=2)
    path = Path(loader.split.shards[1])
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(StoreDamaged, match=path.name):
        list(loader)


def test_large_images_come_one_by_one_and_whole(home):
    """Above `spans.LARGE` neighbours are not joined, and a batch is more than one thread's piece."""
    tiny_variant(home.home, "large", splits={"train": 40}, shards=2, size=(400, 300), format="png")
    with StreamingLoader(
        "large", batch_size=20, fields=("encoded", "index"), num_workers=3, settings=home, timeout=30
    ) as loader:
        for encoded, index in loader:
            assert {type(data) for data in encoded} == {bytes}
            assert encoded == [loader.split[row].encoded for row in index.tolist()]
            assert sum(map(len, encoded)) > READ_BYTES


def test_a_batch_of_bytes_travels_with_its_state(make):
    loader = make(fields=("encoded", "index"))
    batch = next(iter(loader))
    copied = pickle.loads(pickle.dumps(batch))
    assert copied[0] == batch[0] and torch.equal(copied[1], batch[1])
    assert loader.state_of(copied) == loader.state_of(batch)


def test_the_name_is_told_where_another_was_meant(make):
    with pytest.raises(BadArgument, match="it has image, label, weight, encoded, index"):
        make(fields=("bytes",))


def test_what_a_shard_cut_short_does_not_hold_is_quarantined(make):
    loader = make(fields=("encoded", "index", "valid"), on_error="quarantine")
    path, size = loader.split.shards[1], int(loader.split.locate[25]["offset"])
    path.write_bytes(path.read_bytes()[:size])
    shown = {int(i): (data, bool(ok)) for batch in loader for data, i, ok in zip(*batch, strict=True)}
    assert len(shown) == 50
    for row, (data, ok) in shown.items():
        gone = bool(row >= 25 and loader.split.locate[row]["shard"] == 1)
        assert ok is not gone and (data == b"") is gone
