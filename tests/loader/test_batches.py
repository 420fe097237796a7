"""What is in a batch, whatever made it."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data._utils.collate import default_convert
from torchvision.transforms import v2

import datahub
from datahub.core.errors import BadArgument
from datahub.loader.streaming import StreamingLoader
from tests.loader.conftest import check, image, same, seen
from tests.store.builder import CLASSES, label, tiny_variant


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_holds_every_sample_once(make, workers, shuffle):
    loader = make(num_workers=workers, shuffle=shuffle)
    batches = list(loader)
    assert len(batches) == len(loader) == 7
    for batch in batches:
        check(batch)
        assert list(batch) == ["image", "label", "index", "valid", "n_global"]
    assert sorted(seen(batches)) == list(range(50))
    assert (seen(batches) == list(range(50))) is not shuffle
    assert [len(batch["valid"]) for batch in batches] == [8] * 6 + [2]
    assert [batch["n_global"] for batch in batches] == [8] * 6 + [2]


def test_types_of_a_batch(make):
    batch = next(iter(make()))
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (8, 3, 10, 12)
    assert batch["image"].is_contiguous()
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert batch["valid"].dtype == torch.bool and type(batch["n_global"]) is int


def test_threads_and_none_give_the_same_bits(make):
    a, b = (list(make(shuffle=True, seed=5, num_workers=n, prefetch=p)) for n, p in ((0, 1), (3, 5)))
    assert all(same(x, y) for x, y in zip(a, b, strict=True))


def test_seeds_differ(make):
    assert seen(list(make(shuffle=True, seed=1))) != seen(list(make(shuffle=True, seed=2)))


def test_windows_and_lanes_work_on_local_shards(make):
    batches = list(make(shuffle=True, order=datahub.Order(window=2, lanes=4)))
    assert sorted(seen(batches)) == list(range(50))


def test_fields_give_tuples(make):
    loader = make(fields=("label", "image", "key", "source", "weight", "valid", "n_global"), shuffle=True)
    for labels, images, keys, sources, weights, valid, count in loader:
        rows = [int(key.partition("-")[2]) for key in keys]
        assert torch.equal(images, torch.stack([image("train", row) for row in rows]))
        assert labels.tolist() == [label("train", row) for row in rows]
        assert sources == [f"train/{CLASSES[label('train', row)]}/{row}.png" for row in rows]
        assert weights.dtype == torch.int64 and weights.tolist() == [row * 3 for row in rows]
        assert valid.all() and count == len(rows)


def test_without_the_image_nothing_is_read(make):
    loader = make(fields=("index", "label"))
    assert torch.cat([index for index, _ in loader]).tolist() == list(range(50))
    assert loader.stats()["bytes"] == 0


def test_a_split_without_labels(home):
    tiny_variant(home.home, "bare", labelled=False)
    with StreamingLoader("bare", batch_size=8, settings=home) as loader:
        assert list(next(iter(loader))) == ["image", "index", "valid", "n_global"]
    with pytest.raises(BadArgument, match="fields='label': is not a field"):
        StreamingLoader("bare", batch_size=8, fields=("label",), settings=home)


@pytest.mark.parametrize("form", ["png", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats_and_channels(home, form, channels):
    tiny_variant(home.home, "other", format=form, channels=channels)
    with StreamingLoader("other", batch_size=6, shuffle=True, settings=home) as loader:
        split = datahub.open("other", home)["train"]
        for batch in loader:
            assert batch["image"].shape[1:] == (channels, 10, 12)
            expected = torch.stack([split[row]["image"] for row in batch["index"].tolist()])
            assert torch.equal(batch["image"], expected)


def test_images_of_no_fixed_shape_come_as_lists(home, monkeypatch):
    folder = tiny_variant(home.home, "loose", channels=1)
    record = folder / "dataset.json"
    text = record.read_text()
    start = text.index('"shape": [')
    record.write_text(text[:start] + '"shape": null' + text[text.index("]", start) + 1 :])
    with StreamingLoader("loose", batch_size=6, settings=home) as loader:
        for batch in loader:
            assert isinstance(batch["image"], list)
            assert all(each.shape == (3, 10, 12) and each.dtype == torch.uint8 for each in batch["image"])
    with StreamingLoader("loose", batch_size=6, transform=v2.CenterCrop(8), settings=home) as loader:
        assert all(batch["image"].shape[1:] == (3, 8, 8) for batch in loader)
    with StreamingLoader("loose", batch_size=6, transform="normalize", settings=home) as loader:
        assert all(each.dtype == torch.float32 for batch in loader for each in batch["image"])


def test_normalize_uses_the_record(make, home):
    stats = datahub.open("tiny", home).record.splits["train"].stats
    for split in ("train", "test"):
        batch = next(iter(make(split, transform="normalize")))
        raw = next(iter(make(split)))["image"]
        expected = v2.Normalize(stats.mean, stats.std)(v2.ToDtype(torch.float32, scale=True)(raw))
        assert torch.equal(batch["image"], expected)


def test_dtype_and_channels_last(make):
    batch = next(iter(make(transform="normalize", dtype=torch.bfloat16, channels_last=True)))["image"]
    plain = next(iter(make(transform="normalize")))["image"]
    assert batch.dtype == torch.bfloat16 and batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, plain.to(torch.bfloat16))
    assert next(iter(make(channels_last=True)))["image"].is_contiguous(memory_format=torch.channels_last)


def test_a_callable_is_called_once_a_sample(make):
    shapes = []

    def transform(each: torch.Tensor) -> torch.Tensor:
        shapes.append((each.shape, each.dtype))
        return each[:, :4, :4].float()

    for batch in make(transform=transform):
        rows = batch["index"].tolist()
        assert torch.equal(batch["image"], torch.stack([image("train", row)[:, :4, :4].float() for row in rows]))
    assert shapes == [(torch.Size([3, 10, 12]), torch.uint8)] * 50


def test_what_a_callable_returns_is_stacked_where_it_can_be(make):
    assert next(iter(make(transform=lambda each: float(each[0, 0, 0]))))["image"].dtype == torch.float32
    parts = next(iter(make(transform=lambda each: each[:, : 1 + int(each[0, 0, 0]) % 2])))["image"]
    assert isinstance(parts, list) and len(parts) == 8
    assert next(iter(make(transform=lambda each: "x")))["image"] == ["x"] * 8


def test_collate_takes_sample_dicts(make):
    loader = make(collate=lambda samples: {"rows": [s["index"] for s in samples], "first": samples[0]}, shuffle=True)
    batch = next(iter(loader))
    sample = batch["first"]
    assert list(sample) == ["image", "label", "index", "valid"]
    assert torch.equal(sample["image"], image("train", sample["index"]))
    assert sample["label"] == label("train", sample["index"]) and sample["valid"] is True
    assert loader.state_of(batch)["position"] == 8


def test_batch_transform_takes_the_batch(make):
    loader = make(batch_transform=lambda batch: {**batch, "more": batch["label"] + 1})
    batch = next(iter(loader))
    assert torch.equal(batch["more"], batch["label"] + 1)
    assert loader.state_of(batch)["position"] == 8


def test_a_batch_carries_its_state_through_queues_and_copies(make):
    for fields in (None, ("image", "label")):
        loader = make(fields=fields, shuffle=True)
        for number, batch in enumerate(loader, 1):
            state = loader.state_of(batch)
            assert state["position"] == min(number * 8, 50) and state == loader.state_dict()
            assert loader.state_of(pickle.loads(pickle.dumps(batch))) == state
            assert loader.state_of(copy.copy(batch)) == state
    assert StreamingLoader.state_of(default_convert(next(iter(make()))))["position"] == 8


def test_what_carries_no_state_says_so(make):
    loader = make(collate=lambda samples: [1, 2])
    batch = next(iter(loader))
    assert batch == [1, 2]
    with pytest.raises(BadArgument, match="carries no state"):
        loader.state_of(batch)


def test_open_and_vision(home):
    dataset = datahub.open("tiny", home)
    sample = dataset["train"][7]
    assert torch.equal(sample["image"], image("train", 7)) and sample["label"] == label("train", 7)
    transform = v2.Compose([v2.PILToTensor()])
    vision = datahub.vision("tiny", "train", transform=transform, target_transform=lambda t: t + 10, settings=home)
    assert len(vision) == 50 and vision.classes == list(CLASSES)
    assert vision.targets == [label("train", row) for row in range(50)]
    loader = torch.utils.data.DataLoader(vision, batch_size=10, num_workers=2)
    images = torch.cat([images for images, _ in loader])
    assert torch.equal(images, torch.stack([image("train", row) for row in range(50)]))
    picture, target = datahub.vision("tiny", "test", settings=home)[-1]
    assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), image("test", 6).numpy())
    assert target == label("test", 6)
    assert isinstance(partial(datahub.vision, "tiny")(settings=home).class_to_idx, dict)
