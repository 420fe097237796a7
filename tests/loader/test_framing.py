"""Loaders whose transform frames: drawn by place, decoded to the frame, the same on every path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from datahub.core.errors import BadArgument, DamagedSample
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology
from datahub.pack import authoring
from datahub.tensor.draws import Draws
from datahub.tensor.presets import IMAGENET
from datahub.tensor.transforms import CenterCrop, Compose, RandomHorizontalFlip, RandomResizedCrop, Resize
from tests.loader.conftest import same
from tests.pack import jpegs
from tests.tensor.images import encoded, noise
from tests.tensor.test_crops import scales_bytes

COUNT = 24
TRAIN = Compose([RandomResizedCrop(20), RandomHorizontalFlip()])


def picture(row: int) -> bytes:
    pixels = noise(40 + 7 * row % 50, 90 - 5 * row % 60, seed=row)
    return encoded(pixels, "JPEG" if row % 3 else "PNG")


@pytest.fixture
def photos(settings: Settings) -> Settings:
    """``photos``: JPEGs and PNGs of differing sizes."""
    with authoring.Writer("photos", {"image": "image", "label": "label"}, settings=settings, jobs=1) as writer:
        for row in range(COUNT):
            writer.write(split="train", source=f"{row}", image=picture(row), label=["even", "odd"][row % 2])
    return settings


def loader(settings: Settings, **arguments) -> StreamingLoader:
    return StreamingLoader("photos", "train", settings=settings, timeout=60, **{"batch_size": 8, **arguments})


def test_batches_are_those_of_whole_images(photos):
    whole = {}
    with loader(photos) as plain:
        for batch in plain:
            whole |= dict(zip(batch["index"].tolist(), batch["image"], strict=True))
    with loader(photos, shuffle=True, seed=4, transform=TRAIN, num_workers=2) as framed:
        for step, batch in enumerate(framed):
            assert batch["image"].shape == (8, 3, 20, 20) and batch["image"].dtype == torch.uint8
            draws = Draws(4, 0, np.arange(8) + 8 * step)
            wanted = TRAIN([whole[index] for index in batch["index"].tolist()], draws=draws)
            assert torch.equal(batch["image"], wanted)


def test_threads_ranks_and_resuming_change_nothing(photos):
    options = {"shuffle": True, "seed": 2, "transform": TRAIN}
    with loader(photos, num_workers=0, **options) as one:
        batches = list(one)
        again = list(one)
    assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(batches, again, strict=True))
    with loader(photos, num_workers=3, **options) as other:
        other.load_state_dict(one.state_of(batches[0]))
        assert same(list(other), batches[1:])
    halves = []
    for rank in range(2):
        arguments = {**options, "batch_size": None, "global_batch_size": 8, "topology": Topology(rank, 2)}
        with loader(photos, **arguments) as part:
            halves.append(list(part))
    for whole, left, right in zip(batches, *halves, strict=True):
        assert torch.equal(whole["image"], torch.cat([left["image"], right["image"]]))


def test_presets(photos):
    for name, side in (("imagenet_train", 224), ("imagenet_eval", 224)):
        with loader(photos, transform=name, dtype=torch.float16, channels_last=True) as made:
            image = next(iter(made))["image"]
        assert image.shape == (8, 3, side, side) and image.dtype == torch.float16
        assert image.is_contiguous(memory_format=torch.channels_last)
    theirs = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)])
    with loader(photos) as plain, loader(photos, transform="imagenet_eval") as made:
        for whole, batch in zip(plain, made, strict=True):
            wanted = v2.Normalize(*IMAGENET)(torch.stack([theirs(each) for each in whole["image"]]))
            if scales_bytes():
                assert torch.equal(batch["image"], wanted)
            else:  # a level, in the units of the channel that varies least
                assert (batch["image"] - wanted).abs().max() <= 1.01 / 255 / min(IMAGENET[1])


def test_sizes_that_differ_come_as_a_list(photos):
    with loader(photos, transform=Resize(30), num_workers=2) as made:
        images = next(iter(made))["image"]
    assert isinstance(images, list) and {min(each.shape[1:]) for each in images} == {30}


def test_a_dataset_of_one_shape(home):
    with StreamingLoader("tiny", "test", batch_size=7, settings=home, transform=CenterCrop(4)) as made:
        (batch,) = list(made)
    with StreamingLoader("tiny", "test", batch_size=7, settings=home) as plain:
        assert torch.equal(batch["image"], v2.CenterCrop(4)(next(iter(plain))["image"]))


def test_dtypes_that_are_not_made(photos):
    with pytest.raises(BadArgument, match="dtype"):
        loader(photos, transform=TRAIN, dtype=torch.float32)


def test_a_damaged_sample_is_named(photos):
    split = open_dataset("photos", photos)["train"]
    place = split.locate[5]
    shard = split.shards[int(place["shard"])]
    data = bytearray(shard.read_bytes())
    data[int(place["offset"]) : int(place["offset"]) + 64] = bytes(64)
    shard.chmod(0o644)
    shard.write_bytes(data)
    with pytest.raises(DamagedSample) as caught, loader(photos, transform=TRAIN) as made:
        list(made)
    assert caught.value.key == split.key(5)
    for transform, size in ((TRAIN, (20, 20)), (Resize(30), None)):
        with loader(photos, transform=transform, on_error="quarantine") as made:
            batch = next(iter(made))
        assert batch["valid"].tolist() == [row != 5 for row in batch["index"].tolist()]
        black = batch["image"][5]
        assert not black.any() and (black.shape[1:] == size if size else min(black.shape[1:]) == 30)


@jpegs.needs_jpegtran
def test_a_tiled_variant_gives_the_same_pixels(photos, settings):
    from datahub.loader.getting import pack

    pack("photos", "photos/tiled", settings=settings, jobs=1)
    with loader(photos, transform=TRAIN) as plain:
        wanted = list(plain)
    with StreamingLoader("photos/tiled", "train", batch_size=8, settings=settings, transform=TRAIN) as tiled:
        for a, b in zip(wanted, tiled, strict=True):
            assert torch.equal(a["image"], b["image"])
