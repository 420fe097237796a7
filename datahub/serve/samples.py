"""One member of one sample, found in its shard through the shard's offsets: ``train-000000042.jpg``."""

from __future__ import annotations

import re
import struct
from bisect import bisect_left, bisect_right
from itertools import accumulate

from aiohttp import hdrs, web

from datahub.serve.answers import COMMON
from datahub.serve.engine import Engine
from datahub.serve.library import Blob, Variant
from datahub.serve.sending import CHECKED, select
from datahub.serve.state import SERVER
from datahub.store.paths import offsets_name
from datahub.store.record import SplitEntry
from datahub.wire.ranges import Range

NAME = re.compile(r"([a-z][a-z0-9_]{0,63})-([0-9]{9})\.([a-z0-9][a-z0-9._-]{0,31})")
HEADER = 512
MOST = 64
"""Members of one sample that are looked at."""
LARGEST = 64 << 20
"""Bytes of a member that is sent from memory."""
Place = tuple[Blob, int, int]
"""Blob of the shard, offset and size in it."""


async def member(engine: Engine, variant: Variant, name: str) -> Place | None:
    """Where a member ``KEY.EXTENSION`` is. Raises as `Engine.piece`."""
    match = NAME.fullmatch(name)
    split = variant.record.splits.get(match[1]) if match else None
    row = _row(split, int(match[2])) if match and split else None
    if match is None or split is None or row is None:
        return None
    ends = list(accumulate(each.samples for each in split.shards))
    number = bisect_right(ends, row)
    shard = split.shards[number].path
    offsets = variant.blobs.get(offsets_name(shard))
    if offsets is None or shard not in variant.blobs:
        return None
    inside = row - (ends[number - 1] if number else 0)
    start, end = struct.unpack("<2Q", await engine.read(offsets, 8 * inside, 8 * inside + 16))
    return await _found(engine, variant.blobs[shard], start, end, name)


async def sample_blob(
    request: web.Request, blob: Blob, start: int, size: int, etag: str, kind: str
) -> web.StreamResponse:
    """Answer with a part of a blob as a resource of its own."""
    wanted = select(request, etag, size)
    headers = {**COMMON, hdrs.ETAG: f'"{etag}"', hdrs.CACHE_CONTROL: CHECKED, hdrs.ACCEPT_RANGES: "bytes"}
    if wanted.span is None and wanted.status != 200:
        if wanted.status == 416:
            headers[hdrs.CONTENT_RANGE] = f"bytes */{size}"
        return web.Response(status=wanted.status, headers=headers)
    headers[hdrs.CONTENT_TYPE] = kind
    span = wanted.span or Range(0, size)
    if wanted.span is not None:
        headers[hdrs.CONTENT_RANGE] = span.content(size)
    if request.method == "HEAD":
        return web.Response(status=wanted.status, headers={**headers, hdrs.CONTENT_LENGTH: str(span.size)})
    engine = request.app[SERVER].engine
    data = await engine.read(blob, start + span.start, start + span.end) if span.size else b""
    return web.Response(status=wanted.status, body=data, headers=headers)


def _row(split: SplitEntry, number: int) -> int | None:
    """The row of the sample whose key has this number; None where no sample has it."""
    before = bisect_left(split.gaps, number)
    if before < len(split.gaps) and split.gaps[before] == number:
        return None
    return number - before if number - before < split.samples else None


async def _found(engine: Engine, blob: Blob, start: int, end: int, name: str) -> Place | None:
    """Walk the tar headers of one sample."""
    wanted = name.encode()
    for _ in range(MOST):
        if not start + HEADER <= end <= blob.size:
            return None
        header = await engine.read(blob, start, start + HEADER)
        size = _octal(header[124:136])
        if size is None or start + HEADER + size > end or size > LARGEST:
            return None
        if header[:100].rstrip(b"\0") == wanted:
            return blob, start + HEADER, size
        start += HEADER + -(-size // HEADER) * HEADER
    return None


def _octal(field: bytes) -> int | None:
    text = field.strip(b" \0")
    return int(text, 8) if re.fullmatch(rb"[0-7]{1,11}", text) else None
