"""The fused kernels hold to their torch references, and those to torchvision and to the host's own windows."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F

from datahub.tensor.draws import Draws
from datahub.tensor.fused import apply
from datahub.tensor.fused.apply import resample
from datahub.tensor.fused.groups import framed_alike
from datahub.tensor.fused.lines import Lookup
from datahub.tensor.fused.moving import moved
from datahub.tensor.fused.regions import Regions
from datahub.tensor.moves import RandomCrop, RandomHorizontalFlip, RandomVerticalFlip, chained
from datahub.tensor.normalize import Normalize
from datahub.tensor.presets import IMAGENET
from tests.tensor.test_crops import scaled_alike, scales_bytes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Kernels run on the card where there is one, and are interpreted elsewhere."""
triton = pytest.importorskip("triton", reason="Triton is not installed")


def image(rng: random.Random, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Noise; every other one interleaved underneath, as some decoders give them."""
    seed = torch.Generator().manual_seed(rng.randrange(1 << 30))
    made = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=seed)
    return made if rng.random() < 0.5 else made.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def regions(boxes, size, *, scaled=None, corner=None, flip=None) -> Regions:
    count = len(boxes)
    return Regions(
        np.array(boxes, np.float64),
        np.array(scaled or [size] * count),
        np.array(corner or [(0, 0)] * count),
        np.array(flip or [False] * count),
        size,
    )


def side(rng: random.Random) -> int:
    return rng.choice([1, 2, 3, rng.randint(4, 40), rng.randint(60, 160)])


def box(rng: random.Random, height: int, width: int) -> tuple[int, int, int, int]:
    """Anywhere, or at a corner."""
    h, w = rng.randint(1, height), rng.randint(1, width)
    if rng.random() < 0.3:
        return (width - w, height - h, w, h)
    return (rng.randint(0, width - w), rng.randint(0, height - h), w, h)


def test_the_reference_is_torchvisions_resized_crop_bit_for_bit():
    rng = random.Random(0)
    for _ in range(60):
        pixels = image(rng, side(rng), side(rng), rng.choice([1, 3]))
        x, y, w, h = box(rng, *pixels.shape[1:])
        size = rng.choice([1, 2, 20, 64]), rng.choice([1, 3, 20, 64])
        if size[1] == 1 and not scales_bytes():
            continue  # a single column: torch's kernel for bytes, which is ours on any version, is far off floats there
        wanted = F.resized_crop(pixels, y, x, h, w, list(size), antialias=True)
        flip = rng.random() < 0.5
        found = resample([pixels], regions([(x, y, w, h)], size, flip=[flip]), kernel=False)
        assert scaled_alike(found[0], wanted.flip(-1) if flip else wanted)


SIZES = [(1, 1), (19, 3), (14, 21), (40, 33)]


def lookup(kind: str, channels: int) -> Lookup | None:
    """``line``: a table that has one; the kernel then computes instead of looking up."""
    found = None if kind == "none" else Normalize(*IMAGENET).lookup(torch.bfloat16, 3)
    if found is None:
        return None
    assert found.line is not None
    line = found.line[:channels].contiguous() if kind == "line" else None
    return Lookup(found.table[:channels].contiguous(), line)


def same(
    images: list[torch.Tensor], shown: Regions, channels_last: bool = False, looked_up: Lookup | None = None
) -> None:
    """The kernel gives what the reference does, to the bit."""
    wanted = resample(images, shown, lookup=looked_up, channels_last=channels_last, kernel=False)
    there = None if looked_up is None else looked_up.to(DEVICE)
    on = [each.to(DEVICE) for each in images]
    found = resample(on, shown, lookup=there, channels_last=channels_last, kernel=True).cpu()
    assert found.stride() == wanted.stride() and found.dtype == wanted.dtype
    assert torch.equal(found, wanted)


CASES = [(1, False, "table"), (3, False, "none"), (3, True, "table"), (3, True, "line")]


@pytest.mark.parametrize(("channels", "channels_last", "kind"), CASES)
def test_the_kernel_is_the_reference(channels, channels_last, kind):
    rng = random.Random(channels)
    images = [image(rng, *size, channels) for size in SIZES]
    shown = regions(
        [box(rng, *size) for size in SIZES[:-1]] + [(0.25, 3.5, 31.5, 33.75)],
        (7, 10),
        scaled=[(7, 10), (20, 25), (4, 8), (9, 14)],
        corner=[(0, 0), (5, 2), (-2, -3), (1, 0)],
        flip=[True, True, False, True],
    )
    same(images, shown, channels_last, lookup(kind, channels))


def planar(height: int, width: int, at: int, seed: int) -> torch.Tensor:
    """An image that begins ``at`` bytes into its memory, and ends with it."""
    seeded = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (at + 3 * height * width,), dtype=torch.uint8, generator=seeded)[at:].view(
        3, height, width
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_tiles_of_planar_images_meet(monkeypatch, channels_last):
    """Several tiles of rows and of values, scaled to less than half and not; images that begin anywhere in a word."""
    monkeypatch.setattr(apply, "TALL", 5)
    monkeypatch.setattr(apply, "WIDE", 16)
    images = [planar(13, 15, at, at) for at in (1, 2)]
    shown = regions([(0, 0, 15, 13), (6, 2, 9, 11)], (7, 7), scaled=[(6, 7), (7, 8)], flip=[True, False])
    same(images, shown, channels_last, lookup("line", 3))


@pytest.fixture
def read(monkeypatch) -> list[np.ndarray]:
    """Addresses that interpreted kernels read."""
    if DEVICE.type == "cuda":
        pytest.skip("kernels are compiled where a CUDA device is")
    from triton.runtime.interpreter import InterpreterBuilder

    found: list[np.ndarray] = []
    load = InterpreterBuilder.create_masked_load

    def noted(self, pointers, mask, *rest):
        found.append(pointers.data[mask.data].astype(np.int64).ravel())
        return load(self, pointers, mask, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", noted)
    return found


@pytest.mark.parametrize(("height", "width"), [(1, 8), (4, 8), (5, 9), (2, 7), (8, 1)])
def test_nothing_behind_an_images_end_is_read(read, height, width):
    """The box ends with the image, and rows are as short as the kernel's fast way takes them, or shorter."""
    whole = (0, 0, width, height), (4, 6)
    corner = (width - 1, height - 1, 1, 1), (2, 2)
    room = 64  # on either side, so that what is read there is read of no other tensor
    for at, (shown, size) in ((3, whole), (0, corner)):
        memory = planar(1, 3 * height * width + 2 * room, at, 1).view(-1)[: 3 * height * width + 2 * room]
        image = memory[room:-room].view(3, height, width)
        read.clear()
        same([image], regions([shown], size))
        begin, end = image.data_ptr(), image.data_ptr() + image.numel()
        near = np.concatenate(read)
        near = near[(near > begin - room) & (near < end + room)]
        assert len(near) and near.min() >= begin & -4 and near.max() < end


def test_windows_that_show_nothing():
    images = [planar(12, 16, 1, 1), planar(12, 16, 2, 2)]
    shown = regions([(0, 0, 16, 12)] * 2, (6, 7), scaled=[(8, 8)] * 2, corner=[(20, 0), (-3, -20)])
    same(images, shown)
    black = regions([(0, 0, 16, 12)], (4, 4), scaled=[(4, 4)], corner=[(9, 9)])
    assert not resample([images[0].to(DEVICE)], black, kernel=True).any()


@pytest.mark.parametrize("interleaved", [False, True])
def test_images_of_one_layout(interleaved):
    """All of them planar, which the kernel reads by words, or interleaved; boxes that end with their memory."""
    rng = random.Random(7)
    sizes = [(2, 17), (13, 9)]
    images = [image(rng, *size) for size in sizes]
    images = [
        each.permute(1, 2, 0).contiguous().permute(2, 0, 1) if interleaved else each.contiguous() for each in images
    ]
    shown = regions([(0, 0, width, height) for height, width in sizes], (3, 5))
    same(images, shown)


def test_strong_scaling_stays_exact():
    pixels = image(random.Random(3), 40, 1)
    shown = regions([(0, 0, 1, 40)], (1, 1))
    same([pixels], shown)


def test_lookups_are_what_normalize_gives():
    rng = random.Random(4)
    pixels = image(rng, 20, 30)
    shown = regions([(3, 2, 9, 8)], (3, 4))
    normalize = Normalize(*IMAGENET)
    for dtype in (torch.float16, torch.float32):
        found = resample([pixels.to(DEVICE)], shown, lookup=normalize.lookup(dtype, 3).to(DEVICE), kernel=True).cpu()
        assert torch.equal(found, normalize(resample([pixels], shown, kernel=False), dtype))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 2)), min_size=1, max_size=3),
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
@settings(max_examples=60, deadline=None)
def test_lines_are_their_tables(moments, dtype):
    """What is said to be a line is one, however a device adds: rounding products first, or not."""
    normalize = Normalize(*zip(*moments, strict=True))
    found = normalize.lookup(dtype, len(moments))
    assert torch.equal(found.table, normalize.looked_up(dtype, len(moments)))
    if found.line is None:
        return
    slope, start = found.line[:, :1], found.line[:, 1:]
    values = torch.arange(256, dtype=torch.float32)[None]
    assert torch.equal((values * slope + start).to(dtype), found.table)
    assert torch.equal((values.double() * slope + start).float().to(dtype), found.table)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_presets_are_lines(dtype):
    assert Normalize(*IMAGENET).lookup(dtype, 3).line is not None


def test_what_does_not_fit_is_refused():
    pixels = torch.zeros((3, 4, 5), dtype=torch.uint8)
    for bad in [(0, 0, 6, 4), (-1, 0, 3, 3), (0, 0, 0, 4), (2, 2, 3, 2.5)]:
        with pytest.raises(ValueError, match="no part of its image"):
            resample([pixels], regions([bad], (2, 2)))
    with pytest.raises(ValueError, match="1 images and 2 regions"):
        resample([pixels], regions([(0, 0, 1, 1)] * 2, (2, 2)))
    with pytest.raises(ValueError, match="image 1 is no uint8"):
        resample([pixels, pixels.float()], regions([(0, 0, 1, 1)] * 2, (2, 2)))
    with pytest.raises(ValueError, match="the table is"):
        resample([pixels], regions([(0, 0, 1, 1)], (2, 2)), lookup=Lookup(torch.zeros(1, 256)))


def test_frames_of_differing_sizes():
    rng = random.Random(5)
    images = [image(rng, 12, 15), image(rng, 20, 9), image(rng, 12, 15)]
    scaled, window = np.array([(6, 7), (5, 5), (6, 7)]), np.array([(0, 0, 6, 7), (0, 1, 5, 4), (0, 0, 6, 7)])
    flip, places = np.array([False, True, True]), [(0.0, 0.0, 15.0, 12.0), (0.0, 0.0, 9.0, 20.0), (1.0, 2.0, 8.0, 9.0)]
    found = framed_alike(images, scaled, window, flip, places)
    assert [tuple(each.shape) for each in found] == [(3, 6, 7), (3, 5, 4), (3, 6, 7)]
    for row, each in enumerate(images):
        x, y, w, h = map(int, places[row])
        wanted = F.resized_crop(each, y, x, h, w, scaled[row].tolist(), antialias=True)
        _, left, _, width = window[row]
        wanted = wanted[..., left : left + width]
        assert scaled_alike(found[row], wanted.flip(-1) if flip[row] else wanted)


CHAINS = {
    "still": [],
    "crop": [RandomCrop((8, 9), 2, fill=(1, 2, 250))],
    "flips and reflections": [RandomHorizontalFlip(), RandomCrop(12, 4, padding_mode="reflect"), RandomVerticalFlip()],
    "symmetric": [RandomCrop((16, 14), 4, padding_mode="symmetric"), RandomHorizontalFlip()],
    "edges": [RandomCrop((14, 12), (3, 2, 1, 4), padding_mode="edge")],
    "larger than the image": [RandomCrop((20, 20), 8)],
}


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_moves_are_the_hosts(name, kernel):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 12, 10), dtype=np.uint8)
    rows = np.array([7, 0, 19, 7, 3])
    moves = chained(CHAINS[name], len(rows), (12, 10), Draws(0, 1, np.arange(50, 55)))
    wanted = torch.from_numpy(moves.apply(pixels, rows))
    there = torch.from_numpy(pixels).to(DEVICE)
    assert torch.equal(moved(there, rows, moves, kernel=kernel).cpu(), wanted)
    normalize = Normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    table = normalize.looked_up(torch.bfloat16, 3).to(DEVICE)
    found = moved(there, rows, moves, table=table, channels_last=True, kernel=kernel).cpu()
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, normalize(wanted, torch.bfloat16))


def test_no_rows_are_no_images():
    pixels = torch.zeros((4, 3, 5, 5), dtype=torch.uint8)
    assert moved(pixels, np.empty(0, np.int64), None).shape == (0, 3, 5, 5)


@pytest.mark.slow
def test_the_kernels_compile_for_a_card_that_is_not_here():
    """Triton brings NVIDIA's assembler along: what it refuses would otherwise be found on the card alone."""
    script = Path(__file__).parent / "compile_kernels.py"
    command = [sys.executable, str(script)]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["tables", "resample", "resample", "resample", "moved"] * 2
    for line in lines:
        assert "spilled=0" in line
        assert int(line[2].partition("=")[2]) <= 128  # sixteen warps of a multiprocessor, at least
