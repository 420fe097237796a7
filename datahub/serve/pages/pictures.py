"""Samples as small JPEGs, with what is marked in them. Made in threads, a few at a time, and kept by digest."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from aiohttp import hdrs, web
from PIL import Image

from datahub.serve.answers import Refusal
from datahub.serve.engine import Engine
from datahub.serve.library import Variant
from datahub.serve.pages import grid, marks
from datahub.serve.pages.grid import Card
from datahub.serve.pages.made import MADE
from datahub.serve.pages.rendering import HEADERS, missing, page
from datahub.serve.pages.variants import variant_of
from datahub.serve.samples import member
from datahub.serve.sending import select
from datahub.serve.state import SERVER
from datahub.store.record import FieldSpec

SIZES = {"small": 160, "large": 960, "plain": 960}
"""Pixels of the longer side at most; "plain" has no marks."""
LARGER = 16
"""Tiny images are shown so many times as large at most, pixel by pixel."""
PIXELS = 100_000_000
"""Pixels of an image above which it is not decoded."""
BYTES = 64 << 20
"""Bytes of one at most."""
KEPT = 32 << 20
"""Bytes of pictures that are kept."""
THREADS = 2
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what puts it right (CIPA DC-008, 4.6.5.A)."""
ORIENTATION = 0x0112
CACHING = "private, max-age=3600"


class Pictures:
    """Those that were made last. Safe in threads."""

    def __init__(self, most: int = KEPT) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="datahub-picture")
        self.turn = asyncio.Semaphore(2 * THREADS)
        """Images in memory at once."""
        self._most, self._bytes, self._lock = most, 0, threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, name: str) -> bytes | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def keep(self, name: str, data: bytes) -> None:
        with self._lock:
            self._bytes += len(data) - len(self._kept.pop(name, b""))
            self._kept[name] = data
            while self._bytes > self._most:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)


@page
async def picture(request: web.Request) -> web.StreamResponse:
    size, key = request.match_info["size"], request.match_info["key"]
    variant = await variant_of(request)
    found = grid.row_of(variant, key)
    if found is None or size not in SIZES:
        raise missing(f"picture {key}")
    engine, pictures = request.app[SERVER].engine, request.app[MADE].pictures
    (card,) = await grid.cards(engine, variant, found[0], [found[1]])
    if card.shard not in variant.blobs:
        raise missing(f"picture {key}")
    name = f"{variant.etag[:16]}-{variant.blobs[card.shard].sha256[:32]}-{card.offset}-{size}"
    headers = {**HEADERS, hdrs.CACHE_CONTROL: CACHING, hdrs.ETAG: f'"{name}"'}
    if select(request, name, 0).status == 304:
        return web.Response(status=304, headers=headers)
    data = pictures.get(name)
    if data is None:
        async with pictures.turn:
            data = pictures.get(name) or await _made(engine, pictures, variant, card, size)
        pictures.keep(name, data)
    return web.Response(body=data, content_type="image/jpeg", headers=headers)


async def _made(engine: Engine, pictures: Pictures, variant: Variant, card: Card, size: str) -> bytes:
    if card.size > BYTES:
        raise Refusal(422, "TooLarge", f"{card.key} has {card.size:,} bytes: too many for a picture")
    data = await engine.read(variant.blobs[card.shard], card.offset, card.offset + card.size)
    fields = variant.record.fields if size != "plain" else {}
    beside = await members(engine, variant, card.key, marks.extensions(fields))
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pictures.threads, made, data, fields, beside, SIZES[size], card.key)


async def members(engine: Engine, variant: Variant, key: str, extensions: list[str]) -> dict[str, bytes]:
    """Further members of a sample, by extension; those that are not there are left out."""
    found = {}
    for extension in extensions:
        place = await member(engine, variant, f"{key}.{extension}")
        if place is not None:
            blob, start, size = place
            found[extension] = await engine.read(blob, start, start + size)
    return found


def made(data: bytes, fields: Mapping[str, FieldSpec], beside: Mapping[str, bytes], most: int, key: str) -> bytes:
    """A JPEG of an image. Raises `Refusal` where it cannot be decoded, or only at a cost that a page is not worth."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = image.height, image.width
            if size[0] * size[1] > PIXELS:
                raise Refusal(422, "TooLarge", f"{key} is {image.width} x {image.height}: too large for a picture")
            turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
            image.draft("RGB", (most, most))
            shown = _scaled(_coloured(image), most)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, RuntimeWarning) as error:
        raise Refusal(422, "Damaged", f"{key} cannot be decoded: {error}") from error
    if beside:
        shown = marks.draw(shown, marks.read(fields, beside, size), size)
    buffer = io.BytesIO()
    (shown if turn is None else shown.transpose(turn)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _coloured(image: Image.Image) -> Image.Image:
    """In RGB: what is transparent on white, what has 16 bits by its upper 8."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.size and values.max() > 255 else 255.0
        return Image.fromarray((values.clip(0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        clear = image.convert("RGBA")
        ground = Image.new("RGB", clear.size, (255, 255, 255))
        ground.paste(clear, mask=clear.getchannel("A"))
        return ground
    return image.convert("RGB")


def _scaled(image: Image.Image, most: int) -> Image.Image:
    longest = max(image.size)
    if longest * 2 <= most:
        times = min(LARGER, most // longest)
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((most, most), Image.Resampling.BICUBIC)
    return image
