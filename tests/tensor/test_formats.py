"""Every format and kind of pixel beside torchvision or Pillow, and images turned upright by their EXIF orientation."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image, ImageOps
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as reference

from datahub.core.errors import DamagedImage
from datahub.core.images import PIXEL_CAP
from datahub.tensor.decode import decode, decode_rows, header
from datahub.tensor.draws import Draws
from datahub.tensor.folding import fold
from datahub.tensor.framed import decode_framed, sizes_of
from datahub.tensor.transforms import CenterCrop, RandomResizedCrop
from tests.pack.jpegs import needs_jpegtran, program
from tests.tensor.images import chunk, encoded, noise

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
MODES = {1: ImageReadMode.GRAY, 2: ImageReadMode.GRAY_ALPHA, 3: ImageReadMode.RGB, 4: ImageReadMode.RGB_ALPHA}
RGB, RGBA = Image.fromarray(noise(21, 35)), Image.fromarray(noise(21, 35, 4))
WIDE = noise(21, 35, 1).astype(np.uint16) * 257 + 3


def torchvision(data: bytes, channels: int = 3, **options: bool) -> np.ndarray:
    image = reference(torch.frombuffer(bytearray(data), dtype=torch.uint8), MODES[channels], **options)
    return (image.int() >> 8 if image.dtype == torch.uint16 else image).to(torch.uint8).numpy()


def pillow(data: bytes, channels: int = 3, upright: bool = False) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(image.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]))
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def in_modes(form: str, modes: str, **options: object) -> dict[str, bytes]:
    made = {"P": RGB.quantize(16), "LA": RGBA.convert("LA"), "RGBA": RGBA}
    return {
        f"{form} {mode} {options or ''}": encoded(made.get(mode) or RGB.convert(mode), form, **options)
        for mode in modes.split()
    }


AS_PILLOW = {
    **in_modes("AVIF", "RGB RGBA L LA"),
    **in_modes("TIFF", "1 L LA P RGB RGBA CMYK"),
    **in_modes("TIFF", "L RGB", compression="jpeg"),
    **in_modes("TIFF", "RGB CMYK", compression="tiff_lzw"),
    **in_modes("BMP", "1 L P RGB"),
    **in_modes("GIF", "L P"),
    "gif with transparency": encoded(RGB.quantize(16), "GIF", transparency=3),
    "gif of two": encoded(RGB.quantize(16), "GIF", save_all=True, append_images=[RGB.rotate(180).quantize(16)]),
    "webp of two": encoded(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)], lossless=True),
    "avif of two": encoded(RGB, "AVIF", save_all=True, append_images=[RGB.rotate(180)]),
    "tiff of two": encoded(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(180)]),
    "tiff of 16 bits a channel": cv2.imencode(".tiff", np.dstack([WIDE, WIDE + 9, WIDE + 77]))[1].tobytes(),
    "tiff of 32 bits": encoded(Image.fromarray(WIDE.astype(np.int32) - 300), "TIFF"),
    "tiff of floats": encoded(Image.fromarray(noise(21, 35, 1).astype(np.float32) * 1.4 - 20), "TIFF"),
    "tiff lying on its side": encoded(RGB, "TIFF", tiffinfo={0x0112: 6}),
}
AS_TORCHVISION = {
    **in_modes("WEBP", "RGB RGBA"),
    **in_modes("WEBP", "RGB RGBA", lossless=True),
    "jpeg cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "jpeg ycck": simplejpeg.encode_jpeg(np.asarray(RGB.convert("CMYK")), colorspace="CMYK"),
    "jpeg ycck inverted": simplejpeg.encode_jpeg(255 - np.asarray(RGB.convert("CMYK")), colorspace="CMYK"),
    "png of 16 bits a channel": cv2.imencode(".png", np.dstack([WIDE, WIDE + 9, WIDE + 77]))[1].tobytes(),
    "png of 16 bits with alpha": cv2.imencode(".png", np.dstack([WIDE] * 4))[1].tobytes(),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", AS_PILLOW)
def test_equals_pillow(kind, channels):
    assert np.array_equal(decode(AS_PILLOW[kind], channels), pillow(AS_PILLOW[kind], channels))


@pytest.mark.parametrize("kind", AS_TORCHVISION)
def test_equals_torchvision(kind):
    assert np.array_equal(decode(AS_TORCHVISION[kind]), torchvision(AS_TORCHVISION[kind]))


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_alpha_that_a_record_asks_for_equals_torchvision(mode, channels):
    (data,) = in_modes("PNG", mode).values() if mode != "I;16" else [encoded(Image.fromarray(WIDE))]
    # With alpha, the rows of a palette come out garbled from torchvision.
    known = pillow if mode == "P" else torchvision
    found, expected = decode(data, channels), known(data, channels)
    assert np.abs(found.astype(int) - expected).max() <= (1 if channels == 2 and "L" not in mode else 0)


def test_sixteen_bits_in_the_other_byte_order():
    data = encoded(Image.fromarray(WIDE.astype(">u2")), "TIFF")
    assert np.array_equal(decode(data, 1)[0], WIDE >> 8)


@needs_jpegtran  # and cjpeg, which comes with it
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", ["4x2", "2x4", "1x4", "1x3", "3x1"])
def test_jpegs_of_sampling_without_a_name(sampling, progressive):
    size = f"P6 {RGB.width} {RGB.height} 255\n".encode()
    switches = ["-sample", sampling, *(["-progressive"] if progressive else [])]
    data = program("cjpeg", size + RGB.tobytes(), *switches)
    assert header(data) == ("jpeg", RGB.width, RGB.height, 3, False, 1)
    assert np.array_equal(decode(data), torchvision(data))
    assert np.array_equal(decode(data), pillow(data))
    folded = fold(RandomResizedCrop(9))
    draws, whole = Draws(3, 0, np.arange(1)), torch.from_numpy(decode(data))[None]
    out = np.empty((1, 3, 9, 9), np.uint8)
    decode_framed([data], folded.frames(sizes_of([data]), draws), list(out))
    assert np.array_equal(out, RandomResizedCrop(9)(whole, None, draws).numpy())


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("default", [False, True])
def test_an_animated_png_is_the_image_that_others_show(mode, default):
    """Where the first image is no frame of the animation, OpenCV would show the first that is."""
    first = RGBA.convert(mode)
    data = encoded(first, "PNG", save_all=True, default_image=default, append_images=[first.rotate(180)] * 2)
    assert np.array_equal(decode(data), torchvision(data))
    assert np.array_equal(decode(data), pillow(data))


def test_a_cmyk_jpeg_without_adobes_marker():
    data = AS_TORCHVISION["jpeg cmyk"]
    at = data.index(b"\xff\xee")
    bare = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert np.array_equal(decode(bare), torchvision(bare))


# -- sizes that no image has ---------------------------------------------------------------------------------------

SIDE = 60_000


def png_of(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(RGB, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_of(width: int, height: int) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + canvas + encoded(RGB, "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


def avif_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(RGB, "AVIF"))
    at = data.index(b"ispe")
    data[at + 8 : at + 16] = struct.pack(">II", width, height)
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + encoded(RGB.quantize(16), "GIF")[10:]


def tiff_of(width: int, height: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (278, height), (279, 1)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(8)


def bmp_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(RGB, "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def pnm_of(width: int, height: int) -> bytes:
    return b"P6 %d %d 255\n" % (width, height) + bytes(99)


HUGE = [png_of, jpeg_of, webp_of, avif_of, gif_of, tiff_of, bmp_of, pnm_of]


@pytest.mark.parametrize("made", HUGE)
def test_a_huge_header_is_refused_before_memory_is_taken(made):
    data = made(SIDE, SIDE)
    for call in (header, decode, lambda data: sizes_of([data])):
        with pytest.raises(DamagedImage) as caught:
            call(data)
        assert made is avif_of or f"{SIDE} x {SIDE} pixels are above the cap of {PIXEL_CAP}" in caught.value.cause
    with pytest.raises(DamagedImage) as caught:
        decode_rows([encoded(RGB), data], np.empty((2, 3, 21, 35), np.uint8))
    assert caught.value.position == 1


@pytest.mark.parametrize("made", [png_of, jpeg_of, tiff_of, bmp_of, pnm_of])
def test_an_image_without_pixels_is_refused(made):
    for size in ((0, 5), (5, 0), (0, 0)):
        with pytest.raises(DamagedImage):
            decode(made(*size))


@pytest.mark.parametrize("data", [b"\0" * 40, b"%PDF-1.4", b"<svg/>", b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"8BPS\0\1"])
def test_no_other_decoder_is_tried(data):
    with pytest.raises(DamagedImage, match="is no image that datahub reads"):
        decode(data)


# -- EXIF orientation ----------------------------------------------------------------------------------------------


def exif(turn: int, order: str = "II") -> bytes:
    mark = {"II": "<", "MM": ">"}[order]
    entries = struct.pack(f"{mark}HHIHxx", 0x0100, 3, 1, 9) + struct.pack(f"{mark}HHIHxx", 0x0112, 3, 1, turn)
    return order.encode() + struct.pack(f"{mark}HIH", 42, 8, 2) + entries + bytes(4)


def turned(form: str, turn: int, order: str = "II") -> bytes:
    block = exif(turn, order) if form == "PNG" else b"Exif\0\0" + exif(turn, order)
    return encoded(RGB, form, exif=block, **({"quality": 95} if form == "JPEG" else {}))


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_upright_equals_the_reference(form, turn, order):
    data = turned(form, turn, order)
    if form in ("JPEG", "PNG"):
        expected, stored = torchvision(data, apply_exif_orientation=True), torchvision(data)
    else:
        expected, stored = pillow(data, upright=True), pillow(data)
    assert np.array_equal(decode(data, upright=True), expected)
    assert np.array_equal(decode(data), stored), "off by default"
    found = header(data, upright=True)
    assert (found.height, found.width) == expected.shape[1:]
    assert np.array_equal(decode(data, 1, upright=True)[0].shape, expected.shape[1:])


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_crop_of_an_upright_image_is_the_crop_of_what_is_shown(form, turn):
    whole = torch.from_numpy(decode(turned(form, turn), upright=True))
    data = [turned(form, turn)] * 6
    draws = Draws(3, 0, np.arange(6))
    for transform in (RandomResizedCrop((8, 11)), CenterCrop((9, 30))):
        folded = fold(transform)
        out = np.empty((6, 3, *transform.output), np.uint8)
        decode_framed(data, folded.frames(sizes_of(data, upright=True), draws), list(out), upright=True)
        assert np.array_equal(out, transform(torch.stack([whole] * 6), draws=draws).numpy())


@pytest.mark.parametrize(
    "block",
    [b"", b"II", exif(0), exif(9), exif(6)[:20], exif(6).replace(b"\x08\0\0\0", b"\xff\xff\xff\xff"), b"XX" + exif(6)],
)
def test_exif_that_makes_no_sense_turns_nothing(block):
    data = encoded(RGB, "JPEG", exif=b"Exif\0\0" + block) if block else encoded(RGB, "JPEG")
    assert np.array_equal(decode(data, upright=True), decode(data))
    assert np.array_equal(decode(data, upright=True), torchvision(data, apply_exif_orientation=True))
