"""Encoded bytes held in memory: the same batches as streaming, to the bit, and nothing is read once they are."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import datahub
from datahub import transforms as T
from datahub.core.errors import BadArgument, DamagedSample, DatahubError, DeviceOutOfMemory, StoreDamaged
from datahub.core.settings import Settings
from datahub.loader import holding
from datahub.loader.bottleneck import bottleneck
from datahub.loader.getting import pack
from datahub.loader.listening import kind_of
from datahub.loader.residency import Facts, decide
from datahub.loader.streaming import StreamingLoader
from datahub.loader.torch_dataset import StreamingDataset
from datahub.pack import authoring
from datahub.stream import held as held_spans
from datahub.stream.memory import Memory
from datahub.tensor.device.rehearsal import Rehearsal
from tests.loader.conftest import same
from tests.loader.test_device import Picky, picture
from tests.pack.things import write_things
from tests.store.builder import tiny_variant

COUNT = 24
TRAIN = T.Compose([T.RandomResizedCrop(20), T.RandomHorizontalFlip(), T.Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.3))])
PLACES: dict[str, Callable[[], dict[str, Any]]] = {
    "host": dict,
    "device": lambda: {"device": Rehearsal()},
    "device that decodes nothing": lambda: {"device": Rehearsal(decoding=False)},
}
FACTS = Facts(samples=5, shape=None, obstacle=None, present=False, memory=1 << 30, disk=0, path="x", encoded=1 << 20)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Settings:
    """``photos`` (JPEGs of all kinds and PNGs), tiled too; ``things`` with boxes, masks and more."""
    settings = Settings(home=tmp_path_factory.mktemp("held") / "home")
    with authoring.Writer("photos", {"image": "image", "label": "label"}, settings=settings, jobs=1) as writer:
        for row in range(COUNT):
            writer.write(split="train", source=f"{row}", image=picture(row), label=["even", "odd"][row % 2])
    if shutil.which("jpegtran"):
        pack("photos", "photos/tiled", settings=settings, jobs=1)
    write_things(settings)
    tiny_variant(settings.home, "other", splits={"train": 30})
    return settings


def loader(settings: Settings, ref: Any = "photos", **arguments: Any) -> StreamingLoader:
    given = {"batch_size": 7, "shuffle": True, "num_workers": 2, "timeout": 60, **arguments}
    if "global_batch_size" in given:
        del given["batch_size"]
    return StreamingLoader(ref, "train", settings=settings, **given)


def alike(settings: Settings, ref: Any = "photos", epochs: int = 1, **arguments: Any) -> None:
    """Held batches are those of streaming."""
    place = {name: arguments.pop(name) for name in ("device", "workers") if name in arguments}
    with loader(settings, ref, residency="stream", **arguments) as streamed:
        wanted = [batch for _ in range(epochs) for batch in streamed]
    with loader(settings, ref, residency="encoded", **arguments, **place) as held:
        assert "pixels: encoded: " in held.explain()
        found = [batch for _ in range(epochs) for batch in held]
        assert kind_of(held._assembler.source) == "memory"
    assert len(found) == len(wanted) > 0 and all(map(same, found, wanted))


# -- the batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "arguments",
    [
        {"transform": TRAIN, "num_workers": 0},
        {"transform": TRAIN, "dtype": torch.bfloat16, "channels_last": True, "prefetch": 4, "num_workers": 3},
        {"transform": None, "fields": ("image", "encoded", "key")},
        {"transform": lambda image: image[:, :20, :20]},
        {"transform": T.Decode(orient=True, then=TRAIN)},
        {"fields": ("encoded", "label"), "shuffle": False},
    ],
    ids=["inline", "threads", "encoded too", "a callable", "upright", "bytes alone"],
)
def test_the_same_batches_as_streaming(store, place, arguments):
    alike(store, epochs=2, **arguments, **PLACES[place]())


@pytest.mark.skipif(shutil.which("jpegtran") is None, reason="jpegtran is not on the PATH")
@pytest.mark.parametrize("place", PLACES)
def test_a_tiled_variant(store, place):
    alike(store, "photos/tiled", transform=TRAIN, **PLACES[place]())


@pytest.mark.parametrize("place", ["host", "device"])
def test_everything_beside_the_images(store, place):
    fields = ("image", "boxes", "kind", "masks", "mask", "points", "raw", "caption")
    crop = T.Compose([T.Resize((24, 24)), T.RandomHorizontalFlip()])
    alike(store, "things", fields=fields, transform=crop, **PLACES[place]())
    alike(store, "things", fields=("boxes", "kind"), **PLACES[place]())


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize(
    ("ref", "options"),
    [
        (datahub.mix({"photos": 0.7, "other": 0.3}, labels="own"), {"transform": TRAIN}),
        (datahub.balanced("photos"), {}),
        (datahub.weighted("photos", {"odd": 1.0}), {}),
    ],
    ids=["mixture", "balanced", "weighted"],
)
def test_mixtures_and_weights(store, place, ref, options):
    alike(store, ref, **options, **PLACES[place]())


def test_worker_processes_read_the_callers_memory(store):
    alike(store, transform=TRAIN, workers="process", epochs=2)


orders = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 1 << 40),
        "shuffle": st.booleans(),
        "global_batch_size": st.sampled_from([4, 6, 12]),
        "drop_last": st.booleans(),
        "static_shapes": st.booleans(),
        "order": st.sampled_from([datahub.Order(), datahub.Order(window=2, lanes=2)]),
        "where": st.sampled_from([None, "weight >= 60", "label in (0, 2)"]),
        "part": st.sampled_from([(0.0, 1.0), (0.2, 0.9)]),
        "max_samples": st.sampled_from([None, 17]),
    }
)


@given(orders, st.integers(1, 3), st.data())
@tried(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_order_rank_and_place_to_resume_at(home, options, world, draw):
    """Beside a streaming loader, begun at the same place: the bits and the states."""
    rank = draw.draw(st.integers(0, world - 1))
    options = {**options, "topology": datahub.Topology(rank, world), "num_workers": 0}
    with (
        loader(home, "tiny", residency="stream", **options) as streamed,
        loader(home, "tiny", residency="encoded", **options) as held,
        loader(home, "tiny", residency="encoded", device=Rehearsal(), **options) as there,
    ):
        if not len(streamed):
            return
        step = draw.draw(st.integers(0, len(streamed) - 1))
        for made in (streamed, held, there):
            made.skip(step)
        for wanted, found, other in zip(streamed, held, there, strict=True):
            assert same(found, wanted) and same(other, wanted)
        assert same(held.at(3, step), streamed.at(3, step)) and same(there.at(3, step), held.at(3, step))


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["host", "device", "process"])
def test_nothing_is_read_once_it_is_held(home, place):
    more = {"process": {"workers": "process"}, **{name: made() for name, made in PLACES.items()}}[place]
    with loader(home, "tiny", residency="stream") as streamed:
        wanted = [batch for _ in range(3) for batch in streamed]
    with loader(home, "tiny", residency="encoded", **more) as held:
        loop = iter(held)
        found = [next(loop)]
        for shard in held.split.shards:
            os.truncate(shard, 0)  # also of those that are open
        found += [*loop, *(batch for _ in range(2) for batch in held)]
    assert all(map(same, found, wanted)) and len(found) == len(wanted)


def test_only_what_an_epoch_may_hold_is_read(home, monkeypatch):
    taken: list[int] = []
    real = Memory.taken
    monkeypatch.setattr(holding.Memory, "taken", lambda size: taken.append(size) or real(size))
    for some in ({}, {"max_samples": 5}):
        with loader(home, "tiny", residency="encoded", **some) as made:
            list(made)
    assert 0 < taken[1] < taken[0] / 5


def test_at_and_construction_read_nothing_ahead(home, monkeypatch):
    monkeypatch.setattr(holding, "fill", lambda *_: pytest.fail("filled"))
    with loader(home, "tiny", residency="encoded") as made:
        made.at(0, 1)
        assert "residency" not in made.stats()


def test_it_is_never_chosen_and_says_what_it_did(store):
    with loader(store) as made:
        assert "pixels: stream: " in made.explain()
    with loader(store, residency="encoded") as made:
        size = int(made.split.locate["size"].sum())
        list(made)
        text = made.explain()
        assert "encoded samples in memory" in text and made.stats()["bytes"] == size
    with loader(store, residency="encoded", device=Rehearsal()) as made:
        assert "encoded samples on cpu, from where those of a batch come back in one copy" in made.explain()
    with loader(store, residency="encoded", fields=("label",)) as made:
        assert "pixels: stream: batches read nothing of the shards" in made.explain() and len(list(made)) == len(made)


@pytest.mark.parametrize("place", ["host", "device"])
def test_how_far_it_is_filled_is_told(store, place, monkeypatch):
    monkeypatch.setattr(held_spans, "PIECE", 4096)
    events: list[Any] = []
    with loader(store, residency="encoded", listener=events.append, **PLACES[place]()) as made:
        next(iter(made))
        size = made._residency._holding.size
    assert {(each.stage, each.item, each.total) for each in events} == {("hold", "photos@1.0/published:train", size)}
    assert [each.done for each in events] == sorted({each.done for each in events}) and events[-1].done == size
    assert len(events) > 3


def test_a_slow_memory_would_be_named():
    spent = {
        f"{stage}{kind}": 0.0 for stage in ("decode", "transform", "assemble") for kind in ("_seconds", "_busy_seconds")
    }
    spent |= {
        "read_seconds": 1.0,
        "read_busy_seconds": 1.0,
        "wait_seconds": 1.0,
        "use_seconds": 0.0,
        "received": 1,
        "ready": 0,
    }
    assert bottleneck(spent, workers=1, source="memory").name == "memory"


# -- damage -----------------------------------------------------------------------------------------------------------


def spoil(settings: Settings, rows: list[int], ref: str = "tiny") -> None:
    split = datahub.open(ref, settings)["train"]
    for row in rows:
        place = split.locate[row]
        with split.shards[int(place["shard"])].open("r+b") as file:
            file.seek(int(place["offset"]) + 45)
            file.write(b"\xff" * 20)


@pytest.fixture
def damaged(home: Settings) -> Settings:
    """Two images that do not decode, and a shard cut short in its last sample."""
    spoil(home, [3, 20])
    split = datahub.open("tiny", home)["train"]
    last = split.locate[49]
    os.truncate(split.shards[int(last["shard"])], int(last["offset"]) + 10)
    return home


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("transform", [None, T.RandomResizedCrop(6)], ids=["whole", "framed"])
def test_damaged_samples_are_set_aside_alike(damaged, place, transform):
    alike(damaged, "tiny", transform=transform, on_error="quarantine", epochs=2, **PLACES[place]())


def test_worker_processes_set_damaged_samples_aside_alike(damaged):
    alike(damaged, "tiny", on_error="quarantine", workers="process")


@pytest.mark.parametrize("place", PLACES)
def test_damaged_samples_are_named_alike(damaged, place):
    errors = []
    for options in ({"residency": "stream"}, {"residency": "encoded", **PLACES[place]()}):
        with loader(damaged, "tiny", shuffle=False, **options) as made:
            loop = iter(made)
            with pytest.raises(DamagedSample) as caught:
                next(loop)
            errors.append(str(caught.value))
            made.skip(6)
            with pytest.raises(StoreDamaged) as caught:
                list(made)
            errors.append(str(caught.value))
    assert errors[:2] == errors[2:]


def test_what_a_device_refuses_is_decoded_of_what_was_held(store):
    refused = {len(picture(row)) for row in (1, 2)}
    easy = Picky(lambda each: isinstance(each, torch.Tensor) and len(each) in refused)
    with loader(store, residency="stream", device=easy) as streamed:
        wanted = list(streamed)
    with loader(store, residency="encoded", device=easy) as held:
        assert all(map(same, held, wanted)) and held.stats()["refused"] > 0


def test_a_shard_that_is_gone_is_named_when_it_is_filled(home):
    gone = datahub.open("tiny", home)["train"].shards[1]
    gone.unlink()
    with loader(home, "tiny", residency="encoded") as made, pytest.raises(StoreDamaged, match=gone.name):
        next(iter(made))


# -- what cannot be had -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"memory": 1 << 19}, "1.0 MB of encoded samples, and 524.3 kB of memory are free; choose fewer samples"),
        ({"ranks": 2000}, "1.0 MB of encoded samples in each of 2000 ranks, and 1.1 GB of memory are free"),
        ({"device": "cuda:0", "device_memory": 1000}, "1.0 MB of encoded samples, and 1.0 kB of cuda:0 are free"),
    ],
)
def test_what_does_not_fit_is_refused(facts, reason):
    with pytest.raises(BadArgument) as caught:
        decide("encoded", replace(FACTS, **facts))
    assert reason in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    "facts", [{}, {"memory": None}, {"device": "cuda:0", "device_memory": None, "memory": 0}, {"obstacle": "crops"}]
)
def test_what_fits(facts):
    assert decide("encoded", replace(FACTS, **facts)).kind == "encoded"


def test_a_loader_refuses_before_it_begins(home):
    class Full(Rehearsal):
        def free_memory(self) -> int:
            return 100

    with pytest.raises(BadArgument, match="100 B of cpu are free"):
        loader(home, "tiny", residency="encoded", device=Full())


def test_memory_of_a_device_that_runs_out_while_it_is_filled(home):
    class Full(Rehearsal):
        def lane(self) -> Any:
            lane = super().lane()
            lane.enqueue = self.full
            return lane

        def full(self, work: Any) -> Any:
            raise DeviceOutOfMemory("cuda:0", "tried to allocate 2.00 GiB")

    with loader(home, "tiny", residency="encoded", device=Full()) as made, pytest.raises(DeviceOutOfMemory) as caught:
        next(iter(made))
    assert "of encoded samples that it is to hold: tried to allocate 2.00 GiB; choose fewer" in str(caught.value)


def test_memory_that_the_system_does_not_give(home, monkeypatch):
    def refuse(size: int) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(holding.Memory, "taken", refuse)
    with loader(home, "tiny", residency="encoded") as made, pytest.raises(BadArgument, match="cannot be taken: Cannot"):
        next(iter(made))


def test_worker_processes_of_a_dataloader_would_each_hold_it(home):
    options = {"batch_size": 8, "settings": home, "timeout": 60, "residency": "encoded", "num_workers": 0}
    made = StreamingDataset("tiny", "train", **options)
    with pytest.raises(DatahubError, match="every worker process of a DataLoader would hold the set for itself"):
        list(DataLoader(made, batch_size=None, num_workers=1, timeout=60))
    held = list(DataLoader(made, batch_size=None))
    made.close()
    with loader(home, "tiny", shuffle=False, batch_size=8) as streamed:
        for ours, theirs in zip(held, streamed, strict=True):
            assert same(ours["image"], theirs["image"])


def held_files() -> int:
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            found += "datahub-held" in str(each.readlink())
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_closing_gives_the_memory_back(home):
    gc.collect()
    before = held_files()
    with loader(home, "tiny", residency="encoded") as made:
        batch = next(iter(made))
        assert held_files() > before
    del made
    gc.collect()
    assert held_files() == before and batch["image"].any()
    device = Rehearsal()
    with loader(home, "tiny", residency="encoded", device=device) as made:
        next(iter(made))
    assert not any(lane.pending for lane in device.lanes)
