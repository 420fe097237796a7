from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as reference

from datahub.core.errors import DamagedImage
from datahub.core.images import PIXEL_CAP
from datahub.tensor import png
from datahub.tensor.decode import decode, decode_each, decode_rows, header
from tests.tensor.images import chunk, encoded, noise, png_filtered

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
MODES = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}


def torchvision(data: bytes, channels: int) -> np.ndarray:
    image = reference(torch.frombuffer(bytearray(data), dtype=torch.uint8), MODES[channels])
    return (image.int() >> 8 if image.dtype == torch.uint16 else image).to(torch.uint8).numpy()


def palette() -> Image.Image:
    return Image.fromarray(noise(11, 17)).quantize(16)


def transparent_palette() -> bytes:
    return encoded(palette(), transparency=3)


RGB = Image.fromarray(noise(11, 17))
KINDS = {
    "png rgb": encoded(noise(11, 17)),
    "png gray": encoded(noise(11, 17, 1)),
    "png palette": encoded(palette()),
    "png palette with transparency": transparent_palette(),
    "png rgba": encoded(noise(11, 17, 4)),
    "png gray alpha": encoded(RGB.convert("LA")),
    "png 16 bit gray": encoded(Image.fromarray(noise(11, 17, 1).astype(np.uint16) * 257 + 3)),
    "png 1 bit": encoded(RGB.convert("1")),
    "png gray with tRNS": encoded(noise(11, 17, 1), transparency=3),
    "jpeg 420": encoded(noise(33, 47), "JPEG", quality=90),
    "jpeg 444": encoded(noise(33, 47), "JPEG", subsampling=0),
    "jpeg progressive": encoded(noise(33, 47), "JPEG", progressive=True),
    "jpeg gray": encoded(noise(33, 47, 1), "JPEG"),
    "jpeg cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
}
GRAYED = ("png rgb", "png palette", "png palette with transparency", "png rgba")
"""Asked for as gray, these pass through a formula that libpng rounds down and Pillow rounds to nearest."""


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_torchvision(kind, channels):
    found = decode(KINDS[kind], channels)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    far = np.abs(found.astype(int) - torchvision(KINDS[kind], channels)).max()
    assert far <= (1 if kind in GRAYED and channels == 1 else 0)
    assert np.array_equal(decode(memoryview(KINDS[kind]), channels), found)


def test_real_jpegs_equal_torchvision(shared_data):
    files = [*sorted((shared_data / "imagenet-sample").glob("*.JPEG"))[:25], *(shared_data / "coco-mini").glob("*.jpg")]
    assert len(files) > 20
    for file in files:
        data = file.read_bytes()
        assert np.array_equal(decode(data), torchvision(data, 3)), file.name


def test_torchvisions_own_odd_images(shared_data):
    """Palettes, CMYK, gray with alpha, interlaced, with broken EXIF: what torchvision tests itself with."""
    tried = 0
    for file in sorted((shared_data / "torchvision-assets").rglob("*")):
        if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            continue
        data = file.read_bytes()
        try:
            expected = torchvision(data, 3)
        except RuntimeError:
            with pytest.raises(DamagedImage):
                decode(data)
        else:
            assert np.array_equal(decode(data), expected), file.name
        tried += 1
    assert tried > 0


@pytest.mark.parametrize("form", ["BMP", "GIF", "TIFF", "WEBP"])
def test_other_formats_go_through_pillow(form):
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(RGB if form != "GIF" else palette(), form, **options)
    expected = np.asarray((RGB if form != "GIF" else palette()).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(data), expected)
    assert decode(data, 1).shape == (1, 11, 17)


def test_sixteen_bit_tiff_keeps_its_high_byte():
    gray = noise(5, 6, 1)
    assert np.array_equal(decode(encoded(Image.fromarray(gray.astype(np.uint16) << 8), "TIFF"), 1)[0], gray)


def test_gif_gives_its_first_frame():
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, 1).max() == 10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filters", [[0], [1], [2], [2, 1, 0, 1, 2, 2]])
def test_many_alike_pngs_at_once(channels, filters):
    images = [noise(7, 9, channels, seed) for seed in range(20)]
    out = np.empty((20, channels, 7, 9), np.uint8)
    assert png.decode_alike([png_filtered(each, filters) for each in images], out) == []
    expected = np.stack(images).reshape(20, 7, 9, channels).transpose(0, 3, 1, 2)
    assert np.array_equal(out, expected)


def test_a_mixed_batch_equals_its_images_one_by_one():
    data = []
    for seed in range(24):
        image = noise(12, 16, 3, seed)
        data.append(
            [png_filtered(image, [0]), encoded(image), encoded(image, "JPEG"), png_filtered(image, [2, 1])][seed % 4]
        )
    data = [memoryview(each) if i % 2 else each for i, each in enumerate(data)]
    out = np.empty((24, 3, 12, 16), np.uint8)
    decode_rows(data, out)
    assert np.array_equal(out, np.stack(decode_each(data)))
    assert len(png.decode_alike(data, out)) == 12


def test_images_filtered_pixel_by_pixel_are_left_to_c():
    data = [encoded(noise(40, 40, 3, seed)) for seed in range(12)]
    assert png.decode_alike(data, np.empty((12, 3, 40, 40), np.uint8)) == list(range(12))


def broken_png(data: bytes) -> bytes:
    """The same file with an IDAT whose pixels do not fit their checksum, its CRC mended."""
    length = int.from_bytes(data[33:37], "big")
    body = bytearray(data[41 : 41 + length])
    body[-1] ^= 1
    return data[:33] + chunk(b"IDAT", bytes(body)) + data[41 + length + 4 :]


GOOD = png_filtered(noise(8, 8, 1), [0])
DAMAGED = {
    "empty": b"",
    "text": b"<html>not an image</html>",
    "png cut": GOOD[:60],
    "png head only": GOOD[:20],
    "png checksum": broken_png(GOOD),
    "png without pixels": GOOD[:33] + chunk(b"IEND", b""),
    "png of the wrong length": GOOD[:33] + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b""),
    "jpeg cut": encoded(noise(64, 64), "JPEG")[:600],
    "jpeg head only": b"\xff\xd8\xff\xe0",
    "webp cut": encoded(RGB, "WEBP")[:50],
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damage_is_an_error_with_its_cause_and_position(what):
    good = GOOD
    with pytest.raises(DamagedImage) as caught:
        decode_rows([good, good, DAMAGED[what], good], np.empty((4, 1, 8, 8), np.uint8))
    assert caught.value.position == 2 and caught.value.cause
    with pytest.raises(DamagedImage) as caught:
        decode_each([good, DAMAGED[what]], 1)
    assert caught.value.position == 1


def test_a_size_that_the_index_does_not_say():
    with pytest.raises(DamagedImage, match="9 x 8, not 8 x 8"):
        decode_rows([png_filtered(noise(8, 9, 1), [0])], np.empty((1, 1, 8, 8), np.uint8))


def test_a_bomb_is_refused_by_its_header():
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = png.SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(DamagedImage, match=f"above the cap of {PIXEL_CAP}"):
        decode(bomb)


def test_header_says_what_it_sees():
    assert header(KINDS["png rgb"])[:4] == ("png", 17, 11, 3)
    assert header(KINDS["jpeg gray"])[:4] == ("jpeg", 47, 33, 1)
    assert not header(KINDS["png palette"]).plain and not header(KINDS["jpeg cmyk"]).plain
