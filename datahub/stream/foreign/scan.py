"""One shard's samples, by the rules of webdataset's ``group_by_keys`` (1.0, ``webdataset/tariterators.py``).

Members that stand together and share their name up to the first dot are a sample; the rest of the name, in lower case,
is the field. Members called ``__name__`` are passed over, and a field that comes twice is an error, as there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from datahub.core.errors import LayoutError
from datahub.pack import untar
from datahub.pack.images import look
from datahub.pack.members import DEFAULT, Member
from datahub.pack.own.values import document
from datahub.pack.own.webdatasets import IMAGES, TEXT
from datahub.stream.foreign.naming import unpack
from datahub.stream.foreign.windows import ShardBytes

NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
META = re.compile(r"__[^/]*__($|/)")
HEAD = 4096
"""Bytes at the beginning of an image that are looked at: its header, and all of a small one."""
LONG_HEAD = 1 << 18
"""The same of an image that has more before its size: EXIF and colour profiles."""
LARGEST = (1 << 32) - 1
"""Bytes of an image that a locate row can hold."""
READ = ("cls", "json", "txt")

COLUMNS: tuple[str, ...] = (
    "key",
    "source",
    "image_offset",
    "image_size",
    "extension",
    "width",
    "height",
    "format",
    "sha256",
    "cls",
    "json",
    "text",
    "others",
)


class Image(NamedTuple):
    """``width``, ``height`` and ``format`` are 0 and "" where the header does not say; a local ``sha256`` is ""."""

    source: str
    offset: int
    size: int
    extension: str
    width: int
    height: int
    format: str
    sha256: str


@dataclass(slots=True)
class Sample:
    key: str
    images: dict[str, Image] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    others: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Field -> (offset, size) of members that are only located."""

    def __contains__(self, kind: str) -> bool:
        return kind in self.images or kind in self.texts or kind in self.others


@dataclass(slots=True)
class Scanned:
    """The samples of a shard that have an image, as columns of equal length."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    passed: Counter[str] = field(default_factory=Counter)
    """Fields of samples without image, and how often."""


def scan(shard: ShardBytes) -> Scanned:
    """Raises `LayoutError` or `UnsafeArchive` naming the shard and the member, and what reading raises."""
    if shard.kind:
        what = f"is compressed ({shard.kind}): no sample can be read by itself"
        raise LayoutError(shard.path, "", what, unpack(shard.path))
    found = Scanned()
    for sample in _samples(shard):
        _add(found, sample, shard.path)
    return found


def _samples(shard: ShardBytes) -> Iterator[Sample]:
    current: Sample | None = None
    for member in untar.walk(shard, DEFAULT):
        match = None if META.match(member.name) else NAME.fullmatch(member.name)
        if match is None:
            continue
        key, kind = match[1], match[2].lower()
        if current is None or key != current.key:
            if current is not None:
                yield current
            current = Sample(key)
        if kind in current:
            raise LayoutError(shard.path, member.name, "is there twice")
        _take(current, kind, member, shard)
    if current is not None:
        yield current


def _take(sample: Sample, kind: str, member: Member, shard: ShardBytes) -> None:
    if kind in IMAGES:
        if member.size > LARGEST:
            raise LayoutError(shard.path, member.name, f"has {member.size} bytes, more than an image may")
        sample.images[kind] = _image(kind, member, shard)
    elif kind in READ:
        if member.size > TEXT:
            raise LayoutError(shard.path, member.name, f"has {member.size} bytes, too many for a text")
        sample.texts[kind] = member.read().decode("utf-8", "replace")
    else:
        member.read(min(member.size, HEAD))
        sample.others[kind] = member.offset, member.size


def _image(kind: str, member: Member, shard: ShardBytes) -> Image:
    name, offset, size = member.name, member.offset, member.size
    head = member.read(min(size, HEAD))
    width, height, kind_found = _looks(head)
    if not kind_found and size > HEAD:
        head += member.read(min(size, LONG_HEAD) - len(head))
        width, height, kind_found = _looks(head)
    digest = ""
    if shard.whole:
        with shard.unseen():
            whole = sha256(head)
            whole.update(member.read())
            digest = whole.hexdigest()
    return Image(name, offset, size, kind, width, height, kind_found, digest)


def _looks(head: bytes) -> tuple[int, int, str]:
    try:
        found = look(head)
    except ValueError:
        return 0, 0, ""
    return found.width, found.height, found.format


def _add(found: Scanned, sample: Sample, shown: str) -> None:
    image = next((sample.images[kind] for kind in IMAGES if kind in sample.images), None)
    if image is None:
        if "cls" in sample.texts:
            raise LayoutError(shown, f"{sample.key}.cls", "has no image beside it")
        found.passed.update([*sample.texts, *sample.others])
        return
    spare = {kind: (each.offset, each.size) for kind, each in sample.images.items() if each is not image}
    others = {**sample.others, **spare}
    texts = sample.texts
    values = {
        "key": sample.key,
        "source": image.source,
        "image_offset": image.offset,
        "image_size": image.size,
        "extension": image.extension,
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "sha256": image.sha256,
        "cls": texts["cls"].strip() if "cls" in texts else None,
        "json": _document(texts["json"]) if "json" in texts else None,
        "text": texts.get("txt"),
        "others": json.dumps(others) if others else None,
    }
    for name, value in values.items():
        found.columns[name].append(value)


def _document(text: str) -> str | None:
    """JSON in one written form, as packing has it: what is none is a text, and a value that is no object is wrapped."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    return None if value is None else document(value if isinstance(value, dict | list) else [value])
