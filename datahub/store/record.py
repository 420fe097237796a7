"""`dataset.json`: what a packed variant contains, by digest. Written last, so its presence means the variant is whole.

Readers accept this schema and older ones and refuse newer. Per-split fingerprints cover what decides the samples and
their place (split, fields, block size, and every shard's sample count and SHA-256) and not the schema version.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from datahub.core import atomic
from datahub.core.errors import RecordInvalid
from datahub.core.learning import learn

SCHEMA = 2
"""2 added gaps, damaged samples, sizes, formats, duplicates, words, and the types of `datahub.store.typed`."""
FILENAME = "dataset.json"
BLOCKS = "blocks.bin"


class _Frozen(msgspec.Struct, frozen=True, kw_only=True):
    pass


class FileEntry(_Frozen, frozen=True, kw_only=True):
    """One file of the folder (all but the record itself and `blocks.bin`, which the `blocks` digests cover)."""

    path: str
    """Relative to the variant folder, with ``/``."""
    role: str
    """``shard``, ``offsets`` (.tar.idx), ``locate``, ``index``, ``card`` or ``metadata``."""
    bytes: int
    sha256: str
    blocks: str
    """SHA-256 of this file's raw block digests, laid end to end as they stand in `blocks.bin`."""


class FieldSpec(_Frozen, frozen=True, kw_only=True):
    """One field of a sample."""

    type: str
    """``image``, ``label`` (an int stored as text in the shard), a field of the ``.json`` member (``int``, ``float``,
    ``text``, ``json``), or a type of `datahub.store.typed`."""
    extension: str
    """The tar member's extension, ``png``, ``jpg``, ``cls``."""
    shape: list[int] | None = None
    """(H, W, C) where every image has it, else None; of keypoints (K, 2), of visibility (K,)."""
    format: str | None = None
    """Of boxes: ``xyxy``, ``xywh`` or ``cxcywh``."""

    @property
    def identity(self) -> list[str]:
        """What of it decides the samples."""
        return [self.type, self.extension, *([self.format] if self.format else [])]


class ShardEntry(_Frozen, frozen=True, kw_only=True):
    path: str
    samples: int


class Stats(_Frozen, frozen=True, kw_only=True):
    """Per-channel mean and standard deviation of pixels scaled to [0, 1]."""

    mean: list[float]
    std: list[float]
    images: int
    """How many images they were computed from."""
    full: bool
    """True: from every image of the split; False: from those with the smallest key hashes."""


class DamagedEntry(_Frozen, frozen=True, kw_only=True):
    """An image that does not decode, as it came."""

    key: str
    source: str
    reason: str


class SplitEntry(_Frozen, frozen=True, kw_only=True):
    samples: int
    shards: list[ShardEntry]
    block: int
    """B of the order formula: a shard of n samples has ceil(n / B) blocks."""
    locate: str
    index: str
    fingerprint: str
    histogram: list[int]
    """Samples of each class, by label; empty where the split has no labels."""
    stats: Stats | None
    permuted: bool = True
    """True: shards are in the keyed order; False: in source order, and windowed streaming warns."""
    gaps: list[int] = []
    """Numbers that no key has, ascending: samples that packing left out (``--damaged quarantine``)."""
    damaged: list[DamagedEntry] = []
    """Samples that were packed as they are although they do not decode, and those that were left out."""
    kept: dict[str, int] = {}
    """Why images were kept as they are where a recipe would have changed them ("CMYK"), and how many."""
    formats: dict[str, int] = {}
    """Images of each format."""
    sizes: dict[str, list[float]] = {}
    """Least, quartiles and most (5 numbers) of ``width``, ``height``, ``aspect`` (width / height) and ``bytes``."""
    duplicates: int = 0
    """Samples whose image bytes are those of an earlier one of the split."""

    def number(self, row: int) -> int:
        """The number in the key of the sample in this row: the row, but for the gaps before it."""
        low, high = row, row + len(self.gaps)
        while low < high:  # the least number with row + 1 keys up to it
            middle = (low + high) // 2
            if middle + 1 - bisect_right(self.gaps, middle) >= row + 1:
                high = middle
            else:
                low = middle + 1
        return low


class ManifestEntry(_Frozen, frozen=True, kw_only=True):
    name: str
    version: str
    digest: str


class PackerEntry(_Frozen, frozen=True, kw_only=True):
    name: str = "datahub"
    format: int = 1
    """Raised when the same input would give other bytes."""
    options: dict[str, Any] = {}


class Record(_Frozen, frozen=True, kw_only=True):
    schema: int = SCHEMA
    manifest: ManifestEntry
    variant: str
    plan: str
    """Digest of everything that decides the bytes: manifest, variant, packer options, input digests."""
    packer: PackerEntry
    files: list[FileEntry]
    fields: dict[str, FieldSpec]
    splits: dict[str, SplitEntry]
    classes: list[str]
    words: list[str] = []
    """What each class is called in words, where ``classes`` are identifiers."""
    shared: dict[str, int] = {}
    """``train+test``: how many different image files are in both splits; pairs without any are left out."""
    title: str = ""
    homepage: str = ""
    licence: str | None = None
    task: str = ""

    @property
    def ref(self) -> str:
        return f"{self.manifest.name}@{self.manifest.version}/{self.variant}"

    def bytes(self) -> int:
        return sum(each.bytes for each in self.files)


def fingerprint(split: str, fields: dict[str, FieldSpec], block: int, shards: list[tuple[int, str]]) -> str:
    """``sha256:...`` over what decides a split's samples and their place; ``shards`` are (samples, sha256) in order."""
    facts = {
        "split": split,
        "fields": {name: spec.identity for name, spec in sorted(fields.items())},
        "block": block,
        "shards": [[samples, digest] for samples, digest in shards],
    }
    return "sha256:" + hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def encode(record: Record) -> bytes:
    """The record's one written form: sorted keys, two-space indent, a final newline."""
    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2) + b"\n"


def write(folder: Path, record: Record) -> None:
    atomic.write_bytes(folder / FILENAME, encode(record))


def read(folder: Path) -> Record:
    """The record of a variant folder; raises ``FileNotFoundError`` where there is none, else `RecordInvalid`."""
    path = folder / FILENAME
    return decode(path.read_bytes(), str(path))


def decode(data: bytes, path: str) -> Record:
    """The record written as ``data``; ``path`` names it in errors. Raises `RecordInvalid`."""
    try:
        schema = msgspec.json.decode(data, type=_Versioned).schema
        if schema > SCHEMA:
            reason = f"schema {schema} is newer than this datahub reads ({SCHEMA})"
            raise RecordInvalid(path, reason, "upgrade datahub")
        record = msgspec.json.decode(data, type=Record)
    except msgspec.DecodeError as error:
        raise RecordInvalid(path, f"not a record: {error}") from error
    for name in _paths(record):
        if not _inside(name):
            raise RecordInvalid(path, f"names a file outside its folder, {name!r}")
    return record


def _paths(record: Record) -> Iterator[str]:
    yield from (each.path for each in record.files)
    for split in record.splits.values():
        yield from (split.locate, split.index, *(each.path for each in split.shards))


def _inside(path: str) -> bool:
    """Whether a record's path stays in the variant folder: readers, exports and removals trust it."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") for part in parts) and "\\" not in path and "\0" not in path


class _Versioned(msgspec.Struct):
    schema: int


learn(_Versioned, Record)
