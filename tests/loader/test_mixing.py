"""Loaders that mix: the same bits on any world size, resumed, re-threaded and on a device; what is refused."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from datahub.core.errors import BadArgument
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology
from datahub.tensor.device.rehearsal import Rehearsal
from datahub.tensor.draws import Draws
from datahub.tensor.mixing import partners
from datahub.tensor.transforms import (
    ColorJitter,
    Compose,
    CutMix,
    MixUp,
    Normalize,
    RandomErasing,
    RandomHorizontalFlip,
    RandomMix,
    TrivialAugmentWide,
)
from tests.loader.conftest import same
from tests.store.builder import damaged

STRONG = Compose(
    [
        RandomHorizontalFlip(),
        ColorJitter(0.4, 0.4, 0.4, 0.1),
        TrivialAugmentWide(),
        Normalize([0.5], [0.2]),
        RandomErasing(0.5),
    ]
)
MIX = RandomMix([MixUp(0.8), CutMix()])


def options(**more):
    return {"global_batch_size": 16, "shuffle": True, "seed": 3, "transform": STRONG, "batch_transform": MIX, **more}


def side_by_side(parts: list[list[dict]], name: str) -> list[torch.Tensor]:
    return [torch.cat([each[name][each["valid"]] for each in step]) for step in zip(*parts, strict=True)]


def test_the_same_bits_resumed_on_one_two_and_four_ranks(make):
    with make(**options()) as whole:
        batches = list(whole)
    assert [len(batch["label"]) for batch in batches] == [16, 16, 16, 2] and len(batches[0]["label"][0]) > 2
    for ranks, threads in ((1, 0), (2, 3), (4, 2)):
        parts = []
        for rank in range(ranks):
            with make(**options(topology=Topology(rank, ranks), num_workers=threads)) as part:
                part.load_state_dict(whole.state_of(batches[0]))
                parts.append(list(part))
        for name in ("image", "label", "index"):
            joined = side_by_side(parts, name)
            expected = [batch[name] for batch in batches[1:]]
            assert all(torch.equal(a, b) for a, b in zip(joined, expected, strict=True)), (ranks, name)


def test_a_batch_is_its_own_samples_mixed(make):
    plain = options()
    del plain["batch_transform"]
    with make(**plain) as loader:
        batches = list(loader)
    with make(**options()) as loader:
        mixed = list(loader)
    for step, (batch, found) in enumerate(zip(batches, mixed, strict=True)):
        count = len(batch["label"])
        slots = np.arange(count) if count == 16 else np.array([7, 15])  # two samples spread over sixteen slots
        mixing = MIX.bound(len(loader.dataset.classes))
        partner = partners(slots, np.ones(count, np.bool_), 2)
        expected = mixing(batch["image"], batch["label"], mixing.plan(Draws(3, 0, 16 * step + slots), partner))
        assert torch.equal(found["image"], expected[0]) and torch.equal(found["label"], expected[1])
        assert set(found) == set(batch)


def test_on_a_device(make):
    with make(**options()) as here, make(**options(device=Rehearsal())) as there:
        assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_fields_shapes_and_residency(make):
    arguments = options(fields=("label", "image", "valid"), static_shapes=True)
    with make(**arguments, residency="stream") as streamed, make(**arguments, residency="host") as resident:
        one, other = list(streamed), list(resident)
    assert all(same(a, b) for a, b in zip(one, other, strict=True))
    label, image, valid = one[-1]
    assert image.shape == (16, 3, 10, 12) and valid.sum() == 2 and label.shape[0] == 16
    assert (label[~valid].max(dim=1).values == 1).all()  # what is not valid is not mixed


def test_samples_are_mapped_before_they_are_mixed(make):
    with make(**options(transform=None)) as plain, make(**options(transform=None, map=dict)) as through:
        assert all(same(a, b) for a, b in zip(plain, through, strict=True))
    with (
        make(**options(map=lambda sample: {**sample, "label": "x"})) as loader,
        pytest.raises(BadArgument, match="the number of a class of every sample"),
    ):
        next(iter(loader))


def test_a_damaged_sample_is_nobodys_partner(make):
    with make(**options(transform=None)) as loader:
        index = loader.at(0, 0)["index"]
        place = loader.split.locate[int(index[4])]
        damaged(loader.split.shards[int(place["shard"])], int(place["offset"]) + 60, 0xFF)
    with make(**options(transform=None, on_error="quarantine")) as loader:
        batch = next(islice(loader, 1))
    assert batch["valid"].tolist() == [row != 4 for row in range(16)]
    assert not batch["image"][4].any() and (batch["label"][4:6].max(dim=1).values == 1).all()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"fields": ("image", "index")}, "show no label"),
        ({"fields": ("label", "encoded")}, "show no image"),
        ({"collate": list}, "MixUp mixes what the loader collates"),
    ],
)
def test_batches_that_cannot_be_mixed(make, arguments, reason):
    with pytest.raises(BadArgument, match=reason):
        make(batch_transform=MixUp(), **arguments)


def test_mixings_in_the_wrong_place(make):
    with pytest.raises(BadArgument, match="give it as batch_transform="):
        make(transform=MixUp())
    with pytest.raises(BadArgument, match="give mixings as batch_transform="):
        Compose([RandomHorizontalFlip(), MixUp()])
    with pytest.raises(BadArgument, match=r"a sample's label is \d+"):
        list(make(batch_transform=MixUp(num_classes=1)))


@pytest.mark.parametrize(
    ("batch", "ranks", "group", "hint"),
    [
        (12, 4, 2, "a global batch that is a multiple of 8"),
        (16, 4, 8, "a mix_group that divides 4, or a global batch that is a multiple of 32"),
        (50, 3, 2, "a global batch that is a multiple of 6"),
    ],
)
def test_a_world_size_that_cuts_groups_is_refused(make, batch, ranks, group, hint):
    arguments = options(global_batch_size=batch, batch_transform=CutMix(mix_group=group))
    loader = make(**arguments, topology=Topology(0, ranks))
    with pytest.raises(BadArgument, match=f"inside a group.*{hint}"):
        next(iter(loader))
    assert len(make(**arguments)) == -(-50 // batch)


def test_images_that_differ_in_size(settings):
    from datahub.pack import authoring
    from tests.tensor.images import encoded, noise

    with authoring.Writer("photos", {"image": "image", "label": "label"}, settings=settings, jobs=1) as writer:
        for row in range(4):
            image = encoded(noise(20 + row, 20, seed=row), "PNG")
            writer.write(split="train", source=f"{row}", image=image, label="ab"[row % 2])
    with (
        StreamingLoader("photos", batch_size=4, batch_transform=MixUp(), settings=settings) as loader,
        pytest.raises(BadArgument, match="only equal ones can be mixed"),
    ):
        next(iter(loader))


def test_boxes_are_not_mixed_and_stay_where_pixels_do(settings):
    from datahub.pack import authoring
    from tests.tensor.images import encoded, noise

    fields = {"image": "image", "label": "label", "boxes": "boxes:xyxy"}
    with authoring.Writer("scenes", fields, settings=settings, jobs=1) as writer:
        for row in range(4):
            image, boxes = encoded(noise(20, 20, seed=row), "PNG"), [[1.0, 2.0, 9.0, 8.0]]
            writer.write(split="train", source=f"{row}", image=image, label="ab"[row % 2], boxes=boxes)
    given = {"batch_size": 4, "settings": settings}
    with pytest.raises(BadArgument, match="boxes would not be mixed; leave them out"):
        StreamingLoader("scenes", batch_transform=CutMix(), **given)
    with StreamingLoader("scenes", transform=Compose([ColorJitter(0.5), RandomErasing(1.0)]), **given) as loader:
        assert next(iter(loader))["boxes"][0].tolist() == [[1.0, 2.0, 9.0, 8.0]]
    with StreamingLoader("scenes", batch_transform=CutMix(), fields=("image", "label"), **given) as loader:
        assert next(iter(loader))[1].shape == (4, 2)
