"""Batches made on a device are those of the host: proved on one that does everything as late as it may."""

from __future__ import annotations

import gc
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datahub.core.errors import BadArgument, DamagedSample, DeviceOutOfMemory, WorkerDied
from datahub.core.settings import Settings
from datahub.loader.device import CudaOptions, backend_of
from datahub.loader.getting import pack
from datahub.loader.opening import open_dataset
from datahub.loader.ring import Ring
from datahub.loader.streaming import StreamingLoader
from datahub.loader.torch_dataset import StreamingDataset
from datahub.pack import authoring
from datahub.tensor.device.lanes import Undecodable
from datahub.tensor.device.rehearsal import Rehearsal
from datahub.tensor.transforms import (
    CenterCrop,
    Compose,
    Decode,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from tests.loader.conftest import no_threads, same
from tests.tensor.images import encoded, noise

COUNT = 20
LOOKED_UP = Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.3))
TRAIN = Compose([RandomResizedCrop(20), RandomHorizontalFlip(), LOOKED_UP])
CIFAR = Compose([RandomCrop(8, 2), RandomHorizontalFlip(), LOOKED_UP])


def picture(row: int) -> bytes:
    """JPEGs that a device decodes, some that it does not, and PNGs."""
    pixels = noise(40 + 7 * row % 50, 90 - 5 * row % 60, 1 if row % 5 == 4 else 3, seed=row)
    if row % 3 == 0:
        return encoded(pixels, "PNG")
    exif = Image.Exif()
    exif[274] = 6 if row % 7 == 2 else 1  # turned by a quarter
    return encoded(pixels, "JPEG", progressive=row % 4 == 1, exif=exif)


@pytest.fixture
def photos(settings: Settings) -> Settings:
    with authoring.Writer("photos", {"image": "image", "label": "label"}, settings=settings, jobs=1) as writer:
        for row in range(COUNT):
            writer.write(split="train", source=f"{row}", image=picture(row), label=["even", "odd"][row % 2])
    return settings


def loader(settings: Settings, ref: str = "photos", **arguments) -> StreamingLoader:
    given = {"batch_size": 8, "shuffle": True, "num_workers": 2, **arguments}
    return StreamingLoader(ref, "train", settings=settings, timeout=60, **given)


def both(settings: Settings, ref: str = "photos", device: Rehearsal | None = None, **arguments):
    """The batches of the host, which those of the device must equal bit for bit."""
    with loader(settings, ref, **arguments) as here:
        wanted = list(here)
    with loader(settings, ref, device=device or Rehearsal(), **arguments) as there:
        found = list(there)
    assert len(found) == len(wanted) and all(map(same, found, wanted))
    for ours, theirs in zip(found, wanted, strict=True):
        image = ours.get("image") if isinstance(ours, dict) else ours[0]
        if isinstance(image, torch.Tensor):
            assert image.stride() == (theirs["image"] if isinstance(theirs, dict) else theirs[0]).stride()
    return wanted


@pytest.mark.parametrize("workers", [0, 3])
def test_framed_images(photos, workers):
    both(photos, transform=TRAIN, num_workers=workers)
    both(photos, transform=TRAIN, num_workers=workers, dtype=torch.bfloat16, channels_last=True, prefetch=4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"transform": Compose([Resize(24), CenterCrop(20)]), "channels_last": True},
        {"transform": Resize(30)},
        {"transform": Compose([Resize(30), LOOKED_UP]), "dtype": torch.float16},
        {"transform": None},
        {"transform": lambda image: image[:, :20, :20]},
        {
            "transform": TRAIN,
            "collate": lambda samples: {"sum": torch.stack([each["image"].sum() for each in samples])},
        },
        {"transform": TRAIN, "fields": ("image", "key", "label", "encoded", "valid")},
        {"transform": TRAIN, "batch_transform": lambda batch: {**batch, "image": batch["image"] * 2}},
        {"fields": ("label", "index")},
        {"transform": Decode(orient=True, then=TRAIN)},
    ],
    ids=lambda each: "-".join(each) or "nothing",
)
def test_everything_else_that_a_batch_may_be(photos, arguments):
    both(photos, **arguments)


@pytest.mark.parametrize("residency", ["stream", "host", "device", "encoded"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"transform": CIFAR, "dtype": torch.bfloat16, "channels_last": True},
        {"transform": LOOKED_UP, "fields": ("image", "label", "weight")},
        {"transform": Compose([RandomHorizontalFlip(), CenterCrop(6)])},
        {"transform": CenterCrop(6)},
        {"transform": lambda image: image.float(), "batch_transform": lambda batch: {**batch, "n": 1}},
    ],
    ids=lambda each: "-".join(each) or "nothing",
)
def test_images_of_one_shape(home, residency, arguments):
    both(home, "tiny", residency=residency, **arguments)


def test_a_device_that_decodes_nothing(photos):
    both(photos, device=Rehearsal(decoding=False), transform=TRAIN)


def test_a_batch_is_made_again_and_resumed(photos):
    with loader(photos, transform=TRAIN) as here:
        wanted = list(here)
    with loader(photos, transform=TRAIN, device=Rehearsal()) as there:
        assert same(there.at(0, 1), wanted[1])
        there.load_state_dict(here.state_of(wanted[0]))
        assert same(list(there), wanted[1:])


def spoil(settings: Settings, rows: dict[int, slice]) -> None:
    """Zeros in the bytes of some images."""
    split = open_dataset("photos", settings)["train"]
    for row, where in rows.items():
        place = split.locate[row]
        shard = split.shards[int(place["shard"])]
        data = bytearray(shard.read_bytes())
        begin, size = int(place["offset"]), int(place["size"])
        part = range(size)[where]
        data[begin + part.start : begin + part.stop] = bytes(len(part))
        shard.chmod(0o644)
        shard.write_bytes(data)


@pytest.mark.parametrize("transform", [TRAIN, None], ids=["framed", "whole"])
def test_damaged_samples_are_named_or_set_aside(photos, transform):
    """Damage in a header is seen while cutting; damage behind one, when the device has refused the batch."""
    split = open_dataset("photos", photos)["train"]
    sources = split.rows(np.arange(COUNT), ["source"])["source"].to_pylist()
    names = {source: row for row, source in enumerate(sources)}
    header, data = names["7"], names["8"]  # baseline JPEGs
    spoil(photos, {header: slice(0, 64)})
    with pytest.raises(DamagedSample) as caught, loader(photos, transform=transform, device=Rehearsal()) as made:
        list(made)
    assert caught.value.key == split.key(header)
    spoil(photos, {data: slice(180, -40)})
    for batch in both(photos, transform=transform, on_error="quarantine"):
        for row, valid in zip(batch["index"].tolist(), batch["valid"].tolist(), strict=True):
            assert valid == (row not in (header, data))


class Picky(Rehearsal):
    """Refuses whole batches for the sake of some images, as decoders do."""

    def __init__(self, refused) -> None:
        super().__init__()
        self._refuses = refused

    def lane(self):
        lane = super().lane()
        decode = lane.decode

        def picky(encoded_images, channels):
            if any(self._refuses(each) for each in encoded_images) or self._refuses(encoded_images):
                raise Undecodable("no")
            return [each.clamp(max=200) for each in decode(encoded_images, channels)]  # a device's own pixels

        lane.decode = picky
        return lane


def test_what_a_device_refuses_the_host_decodes_and_nothing_else(photos):
    sizes = sorted(len(picture(row)) for row in range(COUNT) if row % 3 and row % 4 != 1)
    some = set(sizes[:3])

    def refused(each) -> bool:
        return isinstance(each, torch.Tensor) and len(each) in some

    with loader(photos, device=Picky(lambda _: False)) as made:
        easy = {int(row): image for batch in made for row, image in zip(batch["index"], batch["image"], strict=True)}
    with loader(photos) as made:
        host = {int(row): image for batch in made for row, image in zip(batch["index"], batch["image"], strict=True)}
    with loader(photos, device=Picky(refused)) as made:
        found = {int(row): image for batch in made for row, image in zip(batch["index"], batch["image"], strict=True)}
        assert made.stats()["refused"] == 3 and "3 images were refused" in made.explain()
    apart = [row for row in found if not torch.equal(found[row], easy[row])]
    assert len(apart) == 3 and all(torch.equal(found[row], host[row]) for row in apart)


def test_a_device_that_refuses_batches_but_no_image(photos):
    """Then none of the batch is given to it; nothing goes round for ever."""
    both(photos, device=Picky(lambda each: isinstance(each, list)), transform=TRAIN)


def test_memory_that_runs_out_says_what_to_lower(photos, monkeypatch):
    class Full(Rehearsal):
        def lane(self):
            raise DeviceOutOfMemory("cuda:0", "tried to allocate 2.00 GiB")

    with pytest.raises(DeviceOutOfMemory, match="lower batch_size or prefetch"), loader(photos, device=Full()) as made:
        list(made)


def test_a_device_that_does_not_answer(photos):
    ring = Ring(Rehearsal(), timeout=0.05, lanes=1)
    with ring.lane(), pytest.raises(WorkerDied, match="sending a batch to the device"), ring.lane():
        pass
    ring.close()


def test_it_says_where_batches_are_made(photos, home):
    with loader(photos, device=Rehearsal(), transform=TRAIN) as made:
        assert "device: cpu; images are decoded by the host, in rehearsal" in made.explain()
    with loader(home, "tiny", device=Rehearsal()) as made:
        assert "device: cpu; images are decoded by the host\n" in made.explain() + "\n"
    with loader(photos) as made:
        assert "device:" not in made.explain()


def test_closing_waits_for_what_is_on_its_way(photos):
    device = Rehearsal()
    made = loader(photos, device=device, transform=TRAIN)
    iterator = iter(made)
    next(iterator)
    made.close()
    assert len(device.lanes) == 3 and not any(lane.pending for lane in device.lanes)
    assert no_threads()


# -- which device -----------------------------------------------------------------------------------------------------


def test_the_host_needs_no_backend():
    assert backend_of("cpu", {}) is None and backend_of(torch.device("cpu"), {}) is None


@pytest.mark.parametrize("device", ["mps", "xpu:0", torch.device("meta"), "cdua", 3.5, None], ids=str)
def test_other_devices_are_refused(device):
    with pytest.raises(BadArgument, match="device"):
        backend_of(device, {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda"), CudaOptions()], ids=str)
def test_no_card_is_one_clear_error(photos, device):
    with pytest.raises(BadArgument, match='use device="cpu"'):
        loader(photos, device=device)


@pytest.mark.parametrize(
    ("wanted", "local", "count", "found"),
    [(None, "", 4, 2), (None, "3", 4, 3), (None, "3", 1, 0), (1, "3", 4, 1), (None, "4", 4, None), (5, "", 4, None)],
)
def test_a_rank_has_its_own_card(monkeypatch, wanted, local, count, found):
    from datahub.loader import device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    options = CudaOptions(wanted, decoder="host")
    if found is None:
        with pytest.raises(BadArgument, match="there are 4"):
            device.backend_of(options, {"LOCAL_RANK": local})
    else:
        assert device.backend_of(options, {"LOCAL_RANK": local}).device == torch.device("cuda", found)


def test_worker_processes_make_no_batches_on_a_device(photos):
    with pytest.raises(BadArgument, match="worker processes"):
        StreamingDataset("photos", "train", batch_size=4, settings=photos, device="cuda")


def test_what_is_chosen_for_a_card(home):
    from datahub.loader.residency import Facts, decide

    def facts(free: int | None) -> Facts:
        common = {"obstacle": None, "present": True, "memory": 10**12, "disk": 10**12, "path": "p"}
        return Facts(samples=60000, shape=(3, 32, 32), device="cuda:0", device_memory=free, **common)

    assert decide("auto", facts(80 << 30)).kind == "device"
    assert decide("auto", facts(300 << 20)).kind == "host"
    assert decide("host", facts(80 << 30)).kind == "host"
    with pytest.raises(BadArgument, match="of cuda:0 are free"):
        decide("device", facts(1 << 20))


# -- on a card --------------------------------------------------------------------------------------------------------

needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LEVELS = 8
"""Grey levels, in the mean, that nvJPEG's pixels may lie from libjpeg's: it rounds and upsamples otherwise."""


def gathered(batch) -> dict:
    return {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("residency", ["stream", "host", "device", "encoded"])
def test_a_card_gives_the_hosts_bits(home, residency):
    """PNGs: everything but the decoding of JPEGs is exact."""
    options = {"residency": residency, "transform": CIFAR, "dtype": torch.bfloat16, "channels_last": True}
    with loader(home, "tiny", **options) as here, loader(home, "tiny", device="cuda", **options) as there:
        for wanted, found in zip(here, there, strict=True):
            assert all(each.is_cuda for each in found.values() if isinstance(each, torch.Tensor))
            assert found["image"].stride() == wanted["image"].stride()
            assert same(gathered(found), dict(wanted))


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("decoder", ["auto", "host", "nvimgcodec"])
def test_a_card_decodes_what_the_host_does(photos, decoder):
    transform = Compose([RandomResizedCrop(20), RandomHorizontalFlip()])
    try:
        there = loader(photos, device=CudaOptions(decoder=decoder), transform=transform)
    except BadArgument as error:
        pytest.skip(str(error))
    with there, loader(photos, transform=transform) as here:
        again = []
        for wanted, found in zip(here, there, strict=True):
            assert torch.equal(found["label"].cpu(), wanted["label"])
            apart = (found["image"].cpu().int() - wanted["image"].int()).abs().float().mean()
            assert apart == 0 if decoder == "host" else apart < LEVELS
            again.append(gathered(found))
        with loader(photos, device=CudaOptions(decoder=decoder), transform=transform) as twice:
            assert all(same(gathered(a), b) for a, b in zip(twice, again, strict=True))


@pytest.mark.gpu
@needs_card
def test_a_card_that_is_full(photos):
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - (256 << 20), 0), dtype=torch.uint8, device="cuda")
    try:
        transform = Compose([RandomResizedCrop(4096), LOOKED_UP])
        made = loader(photos, device="cuda", transform=transform, batch_size=20)
        with made, pytest.raises(DeviceOutOfMemory, match="lower batch_size"):
            list(made)
    finally:
        del held
        torch.cuda.empty_cache()


ON_CARD = (pytest.mark.gpu, needs_card)
CARDS = pytest.mark.parametrize(
    "card", [pytest.param(Rehearsal, id="rehearsal"), pytest.param(lambda: "cuda", id="card", marks=ON_CARD)]
)
CARD = {"transform": TRAIN, "dtype": torch.bfloat16, "channels_last": True, "batch_size": 5, "prefetch": 3}


def epochs(made: StreamingLoader, count: int = 1) -> list[dict]:
    return [gathered(batch) for _ in range(count) for batch in made]


@CARDS
def test_a_card_is_resumed_and_asked_again_bit_for_bit(card, photos):
    with loader(photos, device=card(), **CARD) as made:
        wanted = epochs(made, 2)
        assert same(gathered(made.at(0, 1)), wanted[1])
    with loader(photos, device=card(), **CARD) as made:
        state = made.state_of(next(iter(made)))
    with loader(photos, device=card(), num_workers=0, **CARD) as made:
        made.load_state_dict(state)
        found = epochs(made, 2)
    assert len(found) >= len(wanted) - 1 and all(map(same, found, wanted[1:]))


@CARDS
def test_two_loaders_at_once_on_one_card(card, photos, home):
    """Each with threads and lanes of its own, one decoding, one resident, batch by batch in turn."""
    resident = {"transform": CIFAR, "residency": "device", "batch_size": 7}
    with loader(photos, device=card(), **CARD) as first, loader(home, "tiny", device=card(), **resident) as second:
        wanted = epochs(first), epochs(second)
        found: tuple[list, list] = ([], [])
        for one, other in zip(first, second, strict=False):
            found[0].append(gathered(one))
            found[1].append(gathered(other))
    with loader(photos, device=card(), **CARD) as first, loader(home, "tiny", device=card(), **resident) as second:
        assert all(map(same, epochs(first), wanted[0])) and all(map(same, epochs(second), wanted[1]))
        assert all(map(same, epochs(first), found[0])) and all(map(same, epochs(second), found[1]))


@pytest.mark.gpu
@needs_card
def test_nothing_synchronises_the_callers_stream(photos, home):
    """Not for torch, which would raise; nor for the caller, whose stream is busy while batches come."""
    resident = {"transform": CIFAR, "residency": "device", "batch_size": 5, "prefetch": 3}
    held = {**CARD, "residency": "encoded"}
    for settings_, ref, options in ((photos, "photos", CARD), (photos, "photos", held), (home, "tiny", resident)):
        with loader(settings_, ref, device="cuda", **options) as made:
            for _ in range(4):  # kernels are compiled, and every lane has memory for every batch
                made.set_epoch(0)
                epochs(made)
            made.set_epoch(0)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                torch.cuda._sleep(8_000_000_000)  # seconds
                last = torch.cuda.Event()
                last.record()
                seen = [batch["image"].shape[0] for batch in made]
            finally:
                torch.cuda.set_sync_debug_mode("default")
            assert not last.query(), "the caller's stream was waited for"
            assert sum(seen) == len(made.split)
            torch.cuda.synchronize()


@pytest.mark.gpu
@needs_card
def test_a_card_is_left_in_the_middle(photos):
    """Loops that end early leave no thread, no lane's work, and no memory but what PyTorch keeps."""
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        made = loader(photos, device="cuda", **CARD)
        image = next(iter(made))["image"]
        made.close()
        assert torch.isfinite(image.float()).all()
        del image, made
    assert no_threads()
    gc.collect()
    torch.cuda.synchronize()
    torch.empty(1, device="cuda")  # PyTorch looks for memory that streams are done with when it is asked for some
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


@pytest.mark.gpu
@needs_card
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_card_that_is_not_the_current_one(photos):
    assert torch.cuda.current_device() == 0
    with loader(photos, device="cuda:0", **CARD) as made:
        wanted = epochs(made)
    with loader(photos, device="cuda:1", **CARD) as made:
        for batch, other in zip(made, wanted, strict=True):
            assert batch["image"].device == torch.device("cuda", 1)
            assert same(gathered(batch), other)
    assert torch.cuda.current_device() == 0


@CARDS
def test_a_card_cuts_what_is_tiled(card, photos):
    """Bitstreams cut to their crops decode, on the card, to what whole ones do within the decoder's rounding."""
    if shutil.which("jpegtran") is None:
        pytest.skip("jpegtran, which tiles, is not on the PATH")
    ref = open_dataset("photos", photos).ref
    tiled = str(replace(ref, variant="tiled"))
    pack(str(ref), tiled, settings=photos, jobs=1)
    transform = Compose([RandomResizedCrop(20), RandomHorizontalFlip()])
    with loader(photos, tiled, device=card(), transform=transform) as there:
        with loader(photos, tiled, transform=transform) as here:
            for wanted, found in zip(here, there, strict=True):
                assert (found["image"].cpu().int() - wanted["image"].int()).abs().float().mean() < LEVELS
        assert there.stats()["refused"] == 0, "the card's decoder refuses JPEGs with restart markers"
