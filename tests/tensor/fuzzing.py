"""Damaged images by number, and what decoders must make of them: pixels of the header's shape, or `DamagedImage`.

Case ``n`` of seed ``s`` is a pure function: a failure is told by two numbers and can be run again alone.
"""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from datahub.core.errors import DamagedImage
from datahub.pack import images as packing
from datahub.pack import jpeg, tiletable
from datahub.pack.jpegtran import find_jpegtran
from datahub.pack.tiling import Tiler
from datahub.tensor.decode import decode, decode_each, decode_rows, header
from datahub.tensor.draws import Draws
from datahub.tensor.folding import fold
from datahub.tensor.framed import decode_framed, outputs, sizes_of
from datahub.tensor.transforms import CenterCrop, Compose, RandomHorizontalFlip, RandomResizedCrop, Resize
from tests.tensor.images import chunk, encoded, noise, png_filtered

SLOW = 20_000_000
"""Pixels above which what a damaged header promises is not decoded: it would take long, and nothing else is tried."""
FRAMINGS = (
    Compose([RandomResizedCrop(24), RandomHorizontalFlip()]),
    Compose([Resize(20), CenterCrop(16)]),
    RandomResizedCrop((9, 31)),
    Resize(17),
)
GOOD = encoded(noise(40, 56))


# -- what is damaged -------------------------------------------------------------------------------------------------


@cache
def made() -> dict[str, list[bytes]]:
    """Format -> sound files, small ones of every kind. Tiled ones only where jpegtran is."""
    pixels = noise(40, 56)
    rgb, rgba = Image.fromarray(pixels), Image.fromarray(noise(40, 56, 4))
    wide = Image.fromarray(noise(40, 56, 1).astype(np.uint16) * 257)
    palette = rgb.quantize(16)
    two = {"save_all": True, "append_images": [rgb.rotate(180)]}
    cmyk = rgb.convert("CMYK")
    found = {
        "jpeg": [
            *(encoded(noise(120, 200), "JPEG", quality=q, subsampling=s) for q, s in ((60, 0), (80, 1), (90, 2))),
            encoded(rgb, "JPEG", progressive=True),
            encoded(noise(64, 48, 1), "JPEG"),
            encoded(rgb, "JPEG", restart_marker_blocks=2),
            encoded(rgb, "JPEG", exif=b"Exif\0\0" + exif(6)),
            encoded(cmyk, "JPEG"),
            simplejpeg.encode_jpeg(np.asarray(cmyk), colorspace="CMYK"),
        ],
        "png": [
            *(encoded(each) for each in (pixels, noise(40, 56, 1), rgba, palette, wide, rgb.convert("1"))),
            encoded(palette, transparency=3),
            png_filtered(pixels, [0, 1, 2]),
            png_filtered(noise(40, 56, 1), [2]),
            encoded(rgb, exif=exif(3)),
        ],
        "webp": [
            encoded(rgb, "WEBP"),
            encoded(rgba, "WEBP"),
            encoded(rgba, "WEBP", lossless=True),
            encoded(rgb, "WEBP", **two),
            encoded(rgb, "WEBP", exif=b"Exif\0\0" + exif(8)),
        ],
        "gif": [
            encoded(palette, "GIF"),
            encoded(palette, "GIF", **two),
            encoded(palette, "GIF", transparency=2),
            encoded(rgb.convert("L"), "GIF", interlace=1),
        ],
        "tiff": [
            *(
                encoded(each, "TIFF", compression=how)
                for each in (rgb, rgba, wide, palette, cmyk, rgb.convert("1"))
                for how in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
            ),
            encoded(rgb, "TIFF", compression="jpeg"),
            encoded(rgb.convert("1"), "TIFF", compression="group4"),
            encoded(rgb, "TIFF", tiffinfo={0x0112: 5}),
        ],
        "avif": [encoded(rgb, "AVIF", speed=10), encoded(rgba, "AVIF", speed=10, exif=exif(6))],
        "bmp": [encoded(rgb, "BMP"), encoded(palette, "BMP"), encoded(rgb.convert("1"), "BMP")],
        "pnm": [encoded(rgb, "PPM"), encoded(rgb.convert("L"), "PPM"), encoded(wide, "PPM")],
    }
    found["tiled"] = _tiled(found["jpeg"][:5])
    return {kind: files for kind, files in found.items() if files}


def exif(turn: int) -> bytes:
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHxx", 0x0112, 3, 1, turn) + bytes(4)


def _tiled(files: Sequence[bytes]) -> list[bytes]:
    try:
        find_jpegtran()
    except Exception:  # noqa: BLE001 - its own tests say so
        return []
    return [Tiler().tile(each) for each in files]


@cache
def real(folder: Path) -> dict[str, list[bytes]]:
    """Real files: photographs, tiled ones too, and torchvision's odd ones."""
    photos = [path.read_bytes() for path in sorted((folder / "imagenet-sample").glob("*.JPEG"))[:40]]
    photos = sorted(photos, key=len)[:12]
    odd = folder / "torchvision-assets"
    jpegs = [path.read_bytes() for path in sorted(odd.rglob("*.jpg")) if path.stat().st_size < 200_000]
    pngs = [path.read_bytes() for path in sorted(odd.rglob("*.png")) if path.stat().st_size < 200_000]
    return {"jpeg": photos + jpegs, "tiled": _tiled(photos[:8]), "png": pngs}


# -- how ------------------------------------------------------------------------------------------------------------

Rng = random.Random
Damage = Callable[[Rng, bytearray], bytearray]


def cut(rng: Rng, data: bytearray) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def flips(rng: Rng, data: bytearray) -> bytearray:
    for _ in range(1 << rng.randrange(6)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def header_flips(rng: Rng, data: bytearray) -> bytearray:
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(min(len(data), 700))] ^= 1 << rng.randrange(8)
    return data


def numbers(rng: Rng, data: bytearray) -> bytearray:
    """A number of the header, set to what parsers stumble over."""
    size = rng.choice((1, 2, 4))
    at = rng.randrange(max(1, min(len(data), 700) - size))
    value = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
    data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("big", "little")))
    return data


def overwritten(rng: Rng, data: bytearray) -> bytearray:
    at, size = rng.randrange(len(data)), 1 << rng.randrange(9)
    fill = rng.choice((b"\0", b"\xff", None))
    part = rng.randbytes(size) if fill is None else fill * size
    data[at : at + size] = part[: len(data) - at]
    return data


def swapped(rng: Rng, data: bytearray) -> bytearray:
    size = rng.randint(1, max(1, len(data) // 4))
    a, b = sorted(rng.randrange(max(1, len(data) - size)) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def spliced(rng: Rng, data: bytearray) -> bytearray:
    """A part left out, or there twice."""
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:a] + data[b:] if rng.random() < 0.5 else data[:b] + data[a:]


def restarts(rng: Rng, data: bytearray) -> bytearray:
    """Restart markers renumbered, left out, doubled, or set where there are none; the interval changed."""
    places = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    for _ in range(rng.randint(1, 4)):
        at = rng.choice(places) if places else rng.randrange(len(data))
        how = rng.randrange(4)
        if how == 0 and at + 1 < len(data):
            data[at + 1] = 0xD0 + rng.randrange(8)
        elif how == 1:
            del data[at : at + 2]
        elif how == 2:
            data[at:at] = bytes((0xFF, 0xD0 + rng.randrange(8)))
        elif (interval := data.find(b"\xff\xdd\0\4")) >= 0:
            data[interval + 4 : interval + 6] = rng.choice((0, 1, 3, 7, 0xFFFF)).to_bytes(2, "big")
    return data


def tables(rng: Rng, data: bytearray) -> bytearray:
    """A segment table that lies: any of its numbers, or two lengths whose sum still fits the file."""
    at = data.find(tiletable.MAGIC)
    if at < 0:
        return restarts(rng, data)
    size = int.from_bytes(data[at - 2 : at], "big")
    lengths = range(at + 34, at + size - 2, 2)
    if rng.random() < 0.5 or len(lengths) < 2:
        data[at + rng.randrange(min(size, 60))] ^= 1 << rng.randrange(8)
        return data
    one, other = rng.sample(lengths, 2)
    a, b = (int.from_bytes(data[i : i + 2], "big") for i in (one, other))
    by = rng.randint(-a, b)
    if 0 <= a + by < 1 << 16 and 0 <= b - by < 1 << 16:
        data[one : one + 2], data[other : other + 2] = (a + by).to_bytes(2, "big"), (b - by).to_bytes(2, "big")
    return data


def consistent_tables(rng: Rng, data: bytearray) -> bytearray:
    """Segments swapped or emptied with their lengths: the table is true and the segments are not those of the image."""
    tiling = tiletable.read_table(bytes(data))
    if tiling is None or tiling.sizes.size < 3:
        return tables(rng, data)
    bounds, sizes = tiling.bounds.tolist(), tiling.sizes.reshape(-1).tolist()
    parts = [bytes(data[start : end - 2]) for start, end in pairwise(bounds)]
    a, b = rng.sample(range(len(parts)), 2)
    how = rng.randrange(3)
    if how == 0:
        parts[a], parts[b] = parts[b], parts[a]
    elif how == 1:
        parts[a] = b""
    else:
        parts[a] = rng.randbytes(len(parts[a])).replace(b"\xff", b"\xfe")
    at = data.find(tiletable.MAGIC) + 38
    codes = list(tiletable.codes(len(parts)))
    whole = b"".join(part + bytes((0xFF, code)) for part, code in zip(parts, codes, strict=True))
    head = data[: bounds[0]]
    if 2 * len(sizes) + 60 < 1 << 16:
        head[at : at + 2 * len(parts)] = b"".join(len(part).to_bytes(2, "big") for part in parts)
    return head + whole


def chunks(rng: Rng, data: bytearray) -> bytearray:
    """A PNG whose checksums are right and whose content is not."""
    parts, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        parts.append((bytes(data[at + 4 : at + 8]), bytearray(data[at + 8 : at + 8 + size])))
        at += 12 + size
    if data[:4] != b"\x89PNG" or len(parts) < 2:
        return header_flips(rng, data)
    how, place = rng.randrange(4), rng.randrange(len(parts))
    kind, body = parts[place]
    if how == 0 and body:
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    elif how == 1:
        parts.insert(rng.randrange(len(parts)), parts.pop(place))
    elif how == 2:
        parts.insert(rng.randrange(len(parts) + 1), (kind, bytearray(body)))
    else:
        parts = [(k, _recoded(rng, b) if k == b"IDAT" else b) for k, b in parts]
    return bytearray(bytes(data[:8]) + b"".join(chunk(k, bytes(b)) for k, b in parts))


def _recoded(rng: Rng, body: bytearray) -> bytearray:
    """IDAT's scanlines with other filters or another length, packed again."""
    try:
        raw = bytearray(zlib.decompress(bytes(body)))
    except zlib.error:
        return body
    for _ in range(rng.randint(1, 9)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    if rng.random() < 0.3:
        raw = raw[: rng.randrange(len(raw))] if rng.random() < 0.5 else raw + bytes(rng.randrange(1000))
    return bytearray(zlib.compress(bytes(raw)))


ANY: tuple[Damage, ...] = (cut, flips, header_flips, numbers, overwritten, swapped, spliced)
OWN: dict[str, tuple[Damage, ...]] = {
    "jpeg": (restarts, restarts),
    "tiled": (restarts, tables, tables, consistent_tables, consistent_tables),
    "png": (chunks, chunks, chunks),
}


# -- what must come of it -------------------------------------------------------------------------------------------


def case(seed: int, number: int, files: dict[str, list[bytes]]) -> tuple[str, str, bytes]:
    """Kind, what was done, and the damaged bytes."""
    rng = random.Random(f"{seed}/{number}")
    kind = rng.choice(sorted(files))
    data = bytearray(rng.choice(files[kind]))
    done = []
    for _ in range(1 if rng.random() < 0.8 else 2):
        damage = rng.choice((*ANY, *OWN.get(kind, ())))
        if data:
            data = damage(rng, data)
            done.append(damage.__name__)
    return kind, "+".join(done), bytes(data)


def check(seed: int, number: int, files: dict[str, list[bytes]]) -> bool:
    """Run a case; whether it was decoded. Raises ``AssertionError``, or what should not have been raised."""
    kind, _, data = case(seed, number, files)
    rng = random.Random(f"{seed}/{number}/how")
    upright, channels = rng.random() < 0.3, rng.choice((1, 3, 3, 3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _pack(data)
        try:
            found = header(data, upright)
        except DamagedImage as damage:
            assert damage.cause and "\n" not in damage.cause
            found = None
        if found is not None and found.width * found.height > SLOW:
            return False
        way = rng.choice((_alone, _in_rows, _framed, _framed if kind in ("jpeg", "tiled") else _in_rows))
        return way(rng, data, None if found is None else (found.height, found.width), channels, upright)


def _alone(rng: Rng, data: bytes, size: tuple[int, int] | None, channels: int, upright: bool) -> bool:
    try:
        (pixels,) = decode_each([data], channels, upright)
    except DamagedImage as damage:
        assert damage.position == 0 and damage.cause
        return False
    assert size is not None and pixels.shape == (channels, *size) and pixels.dtype == np.uint8
    assert decode(memoryview(data), channels, upright).shape == pixels.shape
    return True


def _in_rows(rng: Rng, data: bytes, size: tuple[int, int] | None, channels: int, upright: bool) -> bool:
    """Between images that are sound, in a batch of their shape."""
    out = np.empty((3, 3, 40, 56), np.uint8)
    try:
        decode_rows([GOOD, data, GOOD], out, upright)
    except DamagedImage as damage:
        assert damage.position == 1 and damage.cause
        return False
    assert size == (40, 56)
    assert np.array_equal(out[0], out[2]) and np.array_equal(out[0], noise(40, 56).transpose(2, 0, 1))
    return True


def _framed(rng: Rng, data: bytes, size: tuple[int, int] | None, channels: int, upright: bool) -> bool:
    """Cropped while it is decoded, beside sound ones, with frames made for what its header says now, or said once."""
    folded = fold(rng.choice(FRAMINGS))
    assert folded is not None
    channels = min(channels, 3)
    said = np.array([[40, 56], size or (120, 200), [40, 56]])
    if rng.random() < 0.1:
        said[1] += 1
    frames = folded.frames(said, Draws(rng.randrange(1 << 30), 0, np.arange(3)))
    out = outputs(frames, channels)
    try:
        decode_framed([GOOD, data, GOOD], frames, out, upright)
    except DamagedImage as damage:
        assert damage.position == 1 and damage.cause
        return False
    assert size is not None and (said[1] == size).all()
    assert [each.shape for each in out] == [(channels, *row[2:]) for row in frames.window.tolist()]
    try:
        assert sizes_of([data], upright).tolist() == [list(size)]
    except DamagedImage as damage:
        raise AssertionError("decoded, but has no size") from damage
    return True


def _pack(data: bytes) -> None:
    """What packing asks of images: only ``ValueError`` says no."""
    for ask in (packing.look, tiletable.read_table, jpeg.read):
        try:
            found = ask(data)
        except ValueError:
            found = None
        if ask is packing.look and (found is None or found.width * found.height > SLOW):
            return
    try:
        packing.pixels(data)
    except ValueError:
        return
