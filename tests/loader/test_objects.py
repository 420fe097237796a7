"""Boxes, masks and keypoints in batches: typed, read beside the images, and moved with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

import datahub
from datahub import transforms as T
from datahub.core.errors import BadArgument, DamagedSample
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.loader.streaming import StreamingLoader
from datahub.loader.torch_dataset import StreamingDataset
from datahub.store.export import export
from datahub.store.find import find
from datahub.tensor.device.rehearsal import Rehearsal
from datahub.tensor.draws import Draws
from tests.loader.conftest import same
from tests.pack.things import COUNT, FIELDS, check, write_things

EVERY = (*FIELDS, "source", "index", "valid")
POINTS = getattr(tv_tensors, "KeyPoints", None)
"""None before torchvision 0.23, which moves no points: they are plain tensors there."""
TYPED = ("boxes", "masks") if POINTS is None else ("boxes", "masks", "points")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("things") / "home")
    write_things(settings)
    return settings


def load(settings: Settings, **options: Any) -> StreamingLoader:
    return StreamingLoader("things", settings=settings, **{"batch_size": 7, "num_workers": 2, "timeout": 60, **options})


def rows(batches: Any) -> dict[int, dict[str, Any]]:
    """Number of the sample -> its row."""
    found = {}
    for batch in batches:
        for at, source in enumerate(batch["source"]):
            found[int(source[3:])] = {name: value[at] for name, value in batch.items() if name != "n_global"}
    return found


def asked(**options: Any) -> dict[str, Any]:
    """Every field, in dicts."""
    return {"fields": EVERY, "batch_transform": lambda batch: dict(zip(EVERY, batch, strict=True)), **options}


def test_a_sample_is_typed(things: Settings) -> None:
    sample = open_dataset("things", things)["train"][7]
    size = tuple(sample["image"].shape[1:])
    assert type(sample["boxes"]) is tv_tensors.BoundingBoxes and sample["boxes"].dtype == torch.float32
    assert sample["boxes"].canvas_size == size and sample["boxes"].format == tv_tensors.BoundingBoxFormat.XYWH
    assert type(sample["points"]) is (POINTS or torch.Tensor)
    assert POINTS is None or sample["points"].canvas_size == size
    assert type(sample["masks"]) is type(sample["mask"]) is tv_tensors.Mask
    assert type(sample["kind"]) is torch.Tensor and sample["kind"].dtype == torch.int64
    assert sample["image"] is sample["image"]
    check(sample, int(sample["source"][3:]))


def test_batches_show_what_was_written(things: Settings) -> None:
    for workers in (0, 2):
        with load(things, **asked(shuffle=True, num_workers=workers)) as loader:
            found = rows(loader)
        assert sorted(found) == list(range(COUNT))
        for number, row in found.items():
            check(row, number)
            size = tuple(row["image"].shape[1:])
            assert all(row[name].canvas_size == size for name in TYPED if name != "masks")
    batch = next(iter(load(things)))
    assert {"image", "boxes", "kind", "score", "points", "masks", "mask", "index", "valid"} <= set(batch)
    assert "raw" not in batch and "caption" not in batch
    (boxes,) = next(iter(load(things, fields=("boxes",))))
    assert [type(each) for each in boxes] == [tv_tensors.BoundingBoxes] * 7


def expected(sample: Any, own: Draws) -> tuple[Callable[[Any], Any], torch.Tensor]:
    """What torchvision makes of a sample's parts with these draws, and which of its objects stay."""
    (left, top, width, height) = T.RandomResizedCrop(24).boxes(np.array([sample["image"].shape[1:]]), own)[0].tolist()
    flipped = own.again(1).uniform("RandomHorizontalFlip")[0, 0] < 0.5

    def made(each: Any) -> Any:
        each = F.resized_crop(each, top, left, height, width, [24, 24])
        return F.horizontal_flip(each) if flipped else each

    return made, F.sanitize_bounding_boxes(made(sample["boxes"]))[1]


def test_every_annotation_follows_its_image(things: Settings) -> None:
    """The loader's rows are what torchvision makes of the sample with the same draws, wherever it is made."""
    transform = T.Compose([T.RandomResizedCrop(24), T.RandomHorizontalFlip(), T.SanitizeBoundingBoxes(), T.Scale()])
    options = asked(transform=transform, shuffle=True, seed=3, batch_size=10)
    with load(things, **options) as loader:
        batches = list(loader)
    with load(things, **{**options, "num_workers": 0}) as loader:
        loader.skip(2)
        assert all(same(a, b) for a, b in zip(loader, batches[2:], strict=True))
    split, fewer = open_dataset("things", things)["train"], 0
    for step, batch in enumerate(batches):
        assert batch["image"].shape == (10, 3, 24, 24)
        draws = Draws(3, 0, 10 * step + np.arange(10))
        for at, index in enumerate(batch["index"].tolist()):
            sample = split[index]
            made, stay = expected(sample, draws.take(slice(at, at + 1)))
            fewer += int((~stay).sum())
            assert all(batch[name][at].canvas_size == (24, 24) for name in TYPED if name != "masks")
            for name in TYPED:
                assert torch.equal(batch[name][at], made(sample[name])[stay])
            assert torch.equal(batch["kind"][at], sample["kind"][stay])
            assert torch.equal(batch["mask"][at], made(sample["mask"]))
            image = (batch["image"][at] * 255).round().to(torch.uint8)
            assert (image.int() - made(sample["image"]).int()).abs().max() <= 1
    assert fewer


@pytest.mark.skipif(POINTS is None, reason="torchvision moves points from 0.23 on")
def test_annotations_follow_the_strong_presets(things: Settings) -> None:
    """The same on one thread and on more, and what torchvision makes of the sample with the draws of its policy."""
    options = asked(transform="imagenet_train_strong", shuffle=True, seed=3, batch_size=10)
    with load(things, **options) as loader, load(things, **{**options, "num_workers": 0}) as single:
        batches = list(loader)
        assert all(same(a, b) for a, b in zip(single, batches, strict=True))
    crop, flip, policy = T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.TrivialAugmentWide()
    split, moved = open_dataset("things", things)["train"], 0
    for step, batch in enumerate(batches):
        draws = Draws(3, 0, 10 * step + np.arange(10))
        for at, index in enumerate(batch["index"].tolist()):
            sample, own = split[index], draws.take(slice(at, at + 1))
            (left, top, width, height) = crop.boxes(np.array([sample["image"].shape[1:]]), own)[0].tolist()
            flipped = own.again(1).uniform("RandomHorizontalFlip")[0, 0] < flip.p
            (warp,) = policy.warps(own.again(2), (224, 224))
            for name in ("boxes", "points"):
                cropped = F.resized_crop(sample[name], top, left, height, width, [224, 224])
                expected = F.horizontal_flip(cropped) if flipped else cropped
                if not warp.moved[0]:
                    assert torch.equal(batch[name][at], expected)
                elif name == "points" and expected.numel():
                    moved += 1
                    a, b, c, d, e, f = warp.maps[0]
                    back = (batch[name][at].double().numpy() - 112) @ np.array([[a, d], [b, e]]) + [c, f] + 112
                    assert np.allclose(back, expected, atol=1e-2)
    assert moved > 3


def test_objects_are_taken_out_of_what_a_batch_shows_without_its_boxes(things: Settings) -> None:
    transform = T.Compose([T.Resize((24, 24)), T.SanitizeBoundingBoxes(min_size=8)])
    (kinds, indices) = next(iter(load(things, fields=("kind", "index"), transform=transform, batch_size=COUNT)))
    (boxes, kept) = next(iter(load(things, fields=("boxes", "kind"), transform=transform, batch_size=COUNT)))
    assert [each.tolist() for each in kinds] == [each.tolist() for each in kept]
    split = open_dataset("things", things)["train"]
    assert sum(map(len, kinds)) == sum(map(len, boxes)) < sum(len(split[i]["kind"]) for i in indices.tolist())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloaders_workers_hand_them_over(things: Settings, workers: int) -> None:
    dataset = StreamingDataset("things", batch_size=7, shuffle=True, settings=things)
    with load(things, shuffle=True) as loader:
        ours = list(loader)
    batches = list(DataLoader(dataset, batch_size=None, num_workers=workers))
    assert len(batches) == len(ours)
    for one, other in zip(batches, ours, strict=True):
        assert one.state == other.state
        for name in ("boxes", "masks", "points", "kind"):
            assert all(torch.equal(a, b) and type(a) is type(b) for a, b in zip(one[name], other[name], strict=True))
        assert one["boxes"][0].canvas_size == other["boxes"][0].canvas_size


def test_a_mixture_and_a_source_elsewhere_show_them(things: Settings, settings: Settings, tmp_path: Path) -> None:
    write_things(settings, ref="others@1.0", count=9)
    export(find(things, Ref("things")), str(tmp_path / "there"))
    write_things(settings)
    mixed = datahub.mix({"things": 0.5, "others": 0.5})
    with StreamingLoader(mixed, batch_size=6, settings=settings, **asked()) as loader:
        for batch in loader:
            for number, row in rows([batch]).items():
                check(row, number)
    remote = Settings(home=tmp_path / "elsewhere")
    with load(remote, source=str(tmp_path / "there"), **asked()) as loader:
        for number, row in rows(loader).items():
            check(row, number)


def test_lists_are_neither_compared_nor_balanced(things: Settings) -> None:
    for where in ("kind == 'cat'", "boxes > 3", "boxes is None", "score in (1, 2)"):
        with pytest.raises(BadArgument, match="holds a list a sample"):
            load(things, where=where)
    with pytest.raises(BadArgument, match="by='boxes': holds a list a sample"):
        StreamingLoader(datahub.balanced("things", by="boxes"), batch_size=4, settings=things)


def test_what_cannot_be_followed_is_refused_where_it_is_asked_for(things: Settings) -> None:
    with pytest.raises(BadArgument, match=r"transform='<lambda>': sees images alone, and boxes would not follow"):
        load(things, transform=lambda image: image)
    assert load(things, transform=lambda image: image, fields=("image", "kind", "raw"))

    class Swirl(T.BatchTransform):
        def __call__(self, images: Any, dtype: Any = None, draws: Any = None) -> Any:
            return images

    with pytest.raises(BadArgument, match="transform='Swirl': moves pixels where boxes cannot follow"):
        load(things, transform=T.Compose([T.Resize(8), Swirl()]))


def spoil(settings: Settings, source: str, member: str) -> tuple[int, int]:
    """Damage a member of a sample; returns the sample's row, and where the member is."""
    split = open_dataset("things", settings)["train"]
    row = next(row for row in range(len(split)) if split[row]["source"] == source)
    offset, size = (int(each[row]) for each in split.beside.of(member))
    with split.shards[int(split.locate[row]["shard"])].open("r+b") as file:
        file.seek(offset + size // 2)
        file.write(b"\xff" * 4)
    return row, offset


@pytest.mark.parametrize("member", ["masks", "mask", "json"])
def test_a_damaged_annotation_is_an_error_or_set_aside(settings: Settings, member: str) -> None:
    write_things(settings)
    with load(settings, batch_size=COUNT) as loader:
        whole = next(iter(loader))
    row, offset = spoil(settings, "it-003", member)
    split = open_dataset("things", settings)["train"]
    with pytest.raises(DamagedSample) as caught:
        next(iter(load(settings)))
        list(load(settings))
    assert caught.value.key == split.key(row) and caught.value.offset == offset
    with pytest.raises(DamagedSample, match=split.key(row)):
        split[row]["mask" if member == "mask" else "masks" if member == "masks" else "boxes"]
    with load(settings, batch_size=COUNT, on_error="quarantine") as loader:
        batch = next(iter(loader))
    assert batch["valid"].tolist() == [at != row for at in range(COUNT)]
    assert not batch["image"][row].any()
    assert len(batch["boxes"][row]) == len(batch["masks"][row]) == 0
    for at in range(COUNT):
        if at != row:
            assert all(torch.equal(batch[name][at], whole[name][at]) for name in ("boxes", "masks"))


def test_images_of_one_shape_are_resident_and_annotations_are_read(settings: Settings) -> None:
    write_things(settings, size=(24, 30))
    transform = T.Compose([T.RandomCrop(20, 4), T.RandomHorizontalFlip()])
    options = asked(transform=transform, shuffle=True)
    with load(settings, residency="host", **options) as host, load(settings, residency="stream", **options) as stream:
        for one, other in zip(host, stream, strict=True):
            assert same(one, other)
    spoil(settings, "it-003", "masks")
    options |= {"on_error": "quarantine"}
    with load(settings, residency="host", **options) as host, load(settings, residency="stream", **options) as stream:
        found = rows(host)
        assert same(found, rows(stream))
    assert [number for number, row in found.items() if not row["valid"]] == [3] and not found[3]["image"].any()


@pytest.mark.parametrize("size", [None, (24, 30)])
@pytest.mark.parametrize(
    "chain",
    [
        None,
        [T.RandomResizedCrop(20), T.RandomHorizontalFlip(), T.Scale()],
        [
            T.RandomRotation(30),
            T.RandomResizedCrop(20),
            T.RandAugment(2, 20),
            T.MaskFill(255),
            T.SanitizeBoundingBoxes(),
        ],
    ],
)
def test_a_devices_batches_carry_them(settings: Settings, size: tuple[int, int] | None, chain: Any) -> None:
    write_things(settings, size=size)
    spoil(settings, "it-003", "masks")
    options = asked(transform=chain and T.Compose(chain), shuffle=True, on_error="quarantine", batch_size=10)
    with load(settings, device=Rehearsal(), **options) as device, load(settings, **options) as host:
        for one, other in zip(device, host, strict=True):
            assert same(one, other)
            assert [type(each) for each in one["boxes"]] == [tv_tensors.BoundingBoxes] * 10
            assert [each.canvas_size for each in one["boxes"]] == [each.canvas_size for each in other["boxes"]]


def test_whole_samples_are_mapped_by_torchvision(things: Settings) -> None:
    flip = v2.Compose([v2.RandomHorizontalFlip(p=1), v2.Resize((16, 16)), v2.ToDtype(torch.float32, scale=True)])
    with load(things, map=flip) as loader, load(things) as plain_loader:
        for batch, sound in zip(loader, plain_loader, strict=True):
            assert batch["image"].shape == (len(batch["index"]), 3, 16, 16) and batch.state == sound.state
            assert type(batch["image"]) is torch.Tensor and batch["image"].dtype == torch.float32
            assert batch["n_global"] == sound["n_global"] and torch.equal(batch["index"], sound["index"])
            assert batch["valid"].dtype == torch.bool and isinstance(batch["kind"], list)
            for ours, boxes in zip(batch["boxes"], sound["boxes"], strict=True):
                assert torch.equal(ours, F.resize(F.horizontal_flip(boxes), [16, 16])) and ours.canvas_size == (16, 16)


def test_the_order_of_the_hooks_and_what_they_may_return(home: Settings) -> None:
    with StreamingLoader("tiny", batch_size=8, settings=home, num_workers=2, seed=1) as loader:
        sound = next(iter(loader))

    def lit(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "light": float(sample["image"].float().mean()), "name": f"{sample['label']}"}

    options: dict[str, Any] = {"batch_size": 8, "settings": home, "map": lit, "seed": 1}
    batch = next(iter(StreamingLoader("tiny", **options)))
    assert batch["light"].dtype == torch.float32 and batch["name"] == [str(each) for each in sound["label"].tolist()]
    assert all(torch.equal(batch[name], sound[name]) for name in ("image", "label", "index", "valid"))
    names = next(iter(StreamingLoader("tiny", collate=lambda samples: [each["name"] for each in samples], **options)))
    assert names == batch["name"]
    tuples = StreamingLoader("tiny", fields=("image", "label"), batch_transform=lambda pair: pair[1], **options)
    assert torch.equal(next(iter(tuples)), sound["label"])
    stream = StreamingDataset("tiny", **options)
    assert torch.equal(next(iter(DataLoader(stream, batch_size=None, num_workers=1)))["light"], batch["light"])

    def wrong(sample: dict[str, Any]) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        next(iter(StreamingLoader("tiny", **{**options, "map": wrong})))
    assert caught.value.__notes__ == ["in map= for sample train-000000000"]
    for call, reason in ((lambda sample: 5, "cannot|does not return"), (lambda sample: {"a": 1}, "lacks it")):
        with pytest.raises(BadArgument, match=reason):
            next(iter(StreamingLoader("tiny", **{**options, "map": call, "fields": ("image", "label")})))
    with pytest.raises(BadArgument, match="map=5: cannot be called"):
        StreamingLoader("tiny", **{**options, "map": 5})
