"""Decoding to a frame gives the pixels of decoding whole, cropping and scaling."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from datahub.core.errors import DamagedImage
from datahub.pack.tiling import NotTiled, Tiler
from datahub.tensor import partial
from datahub.tensor.compose import Compose
from datahub.tensor.decode import decode, header
from datahub.tensor.draws import Draws
from datahub.tensor.folding import fold
from datahub.tensor.framed import decode_framed, outputs, sizes_of
from datahub.tensor.frames import Frames
from datahub.tensor.partial import jpeg_box
from datahub.tensor.transforms import (
    CenterCrop,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
)
from tests.pack import jpegs
from tests.tensor.images import encoded, noise
from tests.tensor.test_crops import scaled_alike
from tests.tensor.test_decode import KINDS

Box = tuple[int, int, int, int]


def boxes(rng: random.Random, width: int, height: int, count: int) -> list[Box]:
    """Random ones, corners' pixels, the whole, and all but the last row and column."""
    found = [(0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, 1, 1), (0, height - 1, width, 1)]
    found.append((0, 0, max(1, width - 1), max(1, height - 1)))
    for _ in range(count):
        w, h = rng.randint(1, width), rng.randint(1, height)
        found.append((rng.randint(0, width - w), rng.randint(0, height - h), w, h))
    return found


def agree(name: str, data: bytes, whole: np.ndarray, box: Box, channels: int = 3) -> None:
    x, y, w, h = box
    part = jpeg_box(data, header(data), box, channels)
    assert part is not None and np.array_equal(part.transpose(2, 0, 1), whole[:, y : y + h, x : x + w]), (name, box)


@jpegs.needs_jpegtran
def test_boxes_of_made_jpegs_differ_in_no_pixel():
    rng = random.Random(1)
    for name, data in jpegs.made().items():
        try:
            plain = header(data).plain
        except DamagedImage:
            continue  # sampling factors that TurboJPEG has no name for
        if plain:
            whole = decode(data)
            for box in boxes(rng, whole.shape[2], whole.shape[1], 12):
                agree(name, data, whole, box)


@jpegs.needs_jpegtran
def test_boxes_of_real_jpegs_differ_in_no_pixel_published_and_tiled(shared_data: Path):
    rng, tiler = random.Random(2), Tiler()
    for name, data in list(jpegs.real(shared_data))[::4]:
        whole = decode(data)
        try:
            forms = [data, tiler.tile(data)]
        except NotTiled:
            forms = [data]
        if header(data).plain:
            for box in boxes(rng, whole.shape[2], whole.shape[1], 3)[3:]:
                for each in forms:
                    agree(name, each, whole, box)


def test_gray_from_colour_and_gray():
    for sampling in ("420", "Gray"):
        data = jpegs.encoded(jpegs.picture(131, 77), sampling)
        for channels in (1, 3):
            agree(sampling, data, decode(data, channels), (20, 9, 60, 31), channels)


def test_less_is_decoded(monkeypatch):
    heights = []
    true = partial.simplejpeg.decode_jpeg

    def spy(*arguments, **options):
        found = true(*arguments, strict=False, **options)
        heights.append(found.shape[0])
        return found

    data = jpegs.encoded(jpegs.picture(240, 160), "420")
    monkeypatch.setattr(partial.simplejpeg, "decode_jpeg", spy)
    for top, height in ((10, 21), (10, 22)):
        assert jpeg_box(data, header(data), (10, top, 50, height), 3) is not None
    assert heights == [32, 48]  # chroma of row 30 hangs on the second row of MCUs, that of row 31 on the third as well


@jpegs.needs_jpegtran
def test_damage_inside_the_box_is_found_and_beyond_it_is_not():
    data = jpegs.encoded(jpegs.picture(240, 160), "420")
    found, whole = header(data), decode(data)
    half = bytearray(data)
    half[-400:-2] = bytes(398)
    agree("damaged below", bytes(half), whole, (3, 5, 200, 20))
    for broken in (bytes(half), data[:-400]):
        assert jpeg_box(broken, found, (3, 5, 200, 150), 3) is None
    assert jpeg_box(data[: len(data) // 4], found, (3, 5, 200, 60), 3) is None


@jpegs.needs_jpegtran
def test_tables_and_markers_that_lie_give_the_true_pixels_or_an_error():
    rng = random.Random(3)
    data = Tiler().tile(jpegs.encoded(jpegs.picture(240, 160), "420"))
    whole, found = decode(data), header(data)
    table = data.index(b"DHTILES\0")
    markers = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    places = [*range(table, table + 60), *(at + 1 for at in markers)]
    good = 0
    for at in places:
        broken = bytearray(data)
        broken[at] ^= 1 << rng.randrange(3)
        box = boxes(rng, 240, 160, 1)[-1]
        size = np.array([[box[3], box[2]]])
        window = np.concatenate([np.zeros_like(size), size], axis=1)
        frames = Frames(np.array([[160, 240]]), np.array([box]), size, window, np.zeros(1, bool))
        out = outputs(frames, 3)
        try:
            decode_framed([bytes(broken)], frames, out)
        except DamagedImage:
            continue
        if at < table + 60:  # a table is no part of the picture
            x, y, w, h = box
            assert np.array_equal(out[0], whole[:, y : y + h, x : x + w]), at
            good += 1
    assert good == 60 and found.plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format(kind, channels):
    data = KINDS[kind]
    transform = Compose([RandomResizedCrop((12, 10)), RandomHorizontalFlip()])
    draws = Draws(5, 0, np.arange(4, dtype=np.int64))
    folded = fold(transform)
    frames = folded.frames(sizes_of([data] * 4), draws)
    out = np.zeros((4, channels, 12, 10), np.uint8)
    decode_framed([data] * 4, frames, list(out))
    whole = torch.from_numpy(decode(data, channels))
    assert torch.equal(torch.from_numpy(out), transform([whole] * 4, draws=draws))


@jpegs.needs_jpegtran
def test_images_of_every_kind_side_by_side_are_those_alone():
    plain = jpegs.encoded(jpegs.picture(131, 77), "420")
    tiled = Tiler().tile(plain)
    kinds = [tiled, plain, encoded(noise(77, 131)), tiled, tiled, jpegs.encoded(jpegs.picture(131, 77), "Gray"), tiled]
    data = kinds * 2
    folded = fold(Compose([RandomResizedCrop((12, 10)), RandomHorizontalFlip()]))
    frames = folded.frames(sizes_of(data), Draws(3, 0, np.arange(len(data), dtype=np.int64)))
    out = np.zeros((len(data), 3, 12, 10), np.uint8)
    decode_framed(data, frames, list(out))
    for row, each in enumerate(data):
        alone = folded.frames(sizes_of([each]), Draws(3, 0, np.array([row])))
        (made,) = outputs(alone, 3)
        decode_framed([each], alone, [made])
        assert np.array_equal(made, out[row]), row
    for bad in (0, 5, len(data) - 1):  # a cut-off image among sound ones, tiled or not, is the one that is named
        broken = [each[: len(each) // 2] if row == bad else each for row, each in enumerate(data)]
        with pytest.raises(DamagedImage) as caught:
            decode_framed(broken, frames, list(out))
        assert caught.value.position == bad


def test_evaluation_frames():
    data = [encoded(noise(61, 90), "JPEG"), encoded(noise(33, 47))]
    frames = fold(Compose([Resize(40), CenterCrop(32)])).frames(
        sizes_of(data), Draws(0, 0, np.arange(2, dtype=np.int64))
    )
    out = outputs(frames, 3)
    decode_framed(data, frames, out)
    for each, made in zip(data, out, strict=True):
        scaled = F.resize(torch.from_numpy(decode(each)), [40], antialias=True)
        assert scaled_alike(torch.from_numpy(made), F.center_crop(scaled, [32, 32]))


def test_channels_last_memory():
    data = [encoded(noise(61, 90), "JPEG")]
    frames = fold(RandomResizedCrop(16)).frames(sizes_of(data), Draws(0, 0, np.zeros(1, np.int64)))
    planar = outputs(frames, 3)
    slab = torch.empty((1, 3, 16, 16), dtype=torch.uint8, memory_format=torch.channels_last)
    decode_framed(data, frames, planar)
    decode_framed(data, frames, list(slab.numpy()))
    assert np.array_equal(slab[0].numpy(), planar[0])


def test_damage_is_named_by_its_position():
    good = encoded(noise(33, 47), "JPEG")
    frames = fold(CenterCrop(8)).frames(np.array([[33, 47]] * 3), Draws(0, 0, np.arange(3, dtype=np.int64)))
    for bad, cause in (
        (good[:200], "."),
        (b"no image", "no image that datahub reads"),
        (encoded(noise(9, 9)), "9 x 9"),
    ):
        with pytest.raises(DamagedImage, match=cause) as caught:
            decode_framed([good, bad, good], frames, outputs(frames, 3))
        assert caught.value.position == 1
    with pytest.raises(DamagedImage) as caught:
        sizes_of([good, b"x"])
    assert caught.value.position == 1


def test_what_is_folded_into_decoding():
    crop, flip, normalise = RandomResizedCrop(8), RandomHorizontalFlip(), Normalize([0.5], [0.5])
    for whole in (flip, normalise, Compose([normalise, crop]), Compose([flip, crop])):
        assert fold(whole) is None
    cases = [
        (crop, 1, (8, 8)),
        (Compose([crop, flip, normalise]), 2, (8, 8)),
        (Compose([crop, crop]), 1, (8, 8)),
        (Compose([Resize(9), CenterCrop(4), flip, flip]), 3, (4, 4)),
        (Compose([Resize(9), flip, CenterCrop(4)]), 2, None),
        (Compose([crop, RandomCrop(4), flip]), 1, (8, 8)),
        (Compose([crop, RandomVerticalFlip()]), 1, (8, 8)),
        (Compose([Compose([crop, Compose([flip])]), CenterCrop(2)]), 2, (8, 8)),
    ]
    for transform, count, output in cases:
        folded = fold(transform)
        assert folded is not None and folded.count == count and folded.output == output


@pytest.mark.parametrize(
    "transform",
    [
        Compose([RandomResizedCrop(9), RandomHorizontalFlip(), RandomHorizontalFlip(), CenterCrop(6)]),
        Compose([RandomResizedCrop(9), RandomHorizontalFlip(), RandomVerticalFlip(), Normalize([0.5], [0.5])]),
        Compose([Resize(40), CenterCrop(30), RandomCrop(24), RandomHorizontalFlip()]),
        Compose([Resize(40), CenterCrop(30), RandomHorizontalFlip(), RandomHorizontalFlip(), Normalize([0.5], [1.0])]),
        RandomResizedCrop(7),
    ],
    ids=repr,
)
def test_what_is_folded_and_the_rest_make_the_whole(transform):
    data = [encoded(noise(61 - i, 90 - 3 * i, seed=i), "JPEG") for i in range(12)]
    draws = Draws(8, 2, np.arange(12, dtype=np.int64))
    folded = fold(transform)
    frames = folded.frames(sizes_of(data), draws)
    out = outputs(frames, 3)
    decode_framed(data, frames, out)
    found = folded(torch.from_numpy(np.stack(out)), None, draws)
    whole = transform([torch.from_numpy(decode(each)) for each in data], None, draws)
    assert torch.equal(found, whole)
