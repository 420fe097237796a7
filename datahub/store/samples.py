"""`verify --deep`: shards, offsets, locate rows, index and record against each other, and every image decoded."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from datahub.core.errors import DatahubError, Problem
from datahub.core.events import Listener, Progress
from datahub.core.images import PIXEL_CAP, checked
from datahub.store import index, typed
from datahub.store.find import Located
from datahub.store.locate import Rows, open_rows
from datahub.store.members import check_further
from datahub.store.paths import key_of, offsets_name
from datahub.store.record import FILENAME, SplitEntry

HEADER = 512
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM")
"""The decoders that may run."""
SHOWN = 8
"""Bad samples of a shard, or rows of a column, that are told one by one; the others are counted."""


def check(located: Located, wrong: Set[str], *, jobs: int, listener: Listener) -> list[Problem]:
    """Every contradiction between the files of a variant, and every image that does not decode to its size.

    Files in ``wrong`` (missing, of another size) are not looked at.
    """
    problems: list[Problem] = []
    total = sum(split.samples for split in located.record.splits.values())
    done = 0
    with ThreadPoolExecutor(jobs, thread_name_prefix="decode") as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cap here stands in for Pillow's warning of large images
        for name, split in located.record.splits.items():
            tables = None if wrong & {split.locate, split.index} else _tables(located, name, split, problems)
            if tables is None:
                continue
            firsts = np.cumsum([0, *(each.samples for each in split.shards)]).tolist()
            tasks = [_Shard(located, name, number, first, tables) for number, first in enumerate(firsts[:-1])]
            futures = {pool.submit(task.problems): task for task in tasks if not wrong & task.files}
            for future in as_completed(futures):
                done += split.shards[futures[future].number].samples
                listener(Progress("decode", str(located.ref), done, total, unit="samples"))
            problems += [problem for future in futures for problem in future.result()]
    return problems


class _Tables(NamedTuple):
    rows: Rows
    index: pa.Table
    damaged: frozenset[str]
    """Keys of samples that the record says were damaged when they were packed."""


def _tables(located: Located, name: str, split: SplitEntry, problems: list[Problem]) -> _Tables | None:
    """The split's locate rows and index, once they agree in length; what contradicts goes to ``problems``."""
    found: list[Any] = []
    for path, read in ((split.locate, open_rows), (split.index, index.read)):
        try:
            table = read(located.path / path)
        except DatahubError as error:
            problems.append(Problem(path, error.message.partition(": ")[2]))
            continue
        if len(table) != split.samples:
            problems.append(Problem(path, f"has {len(table)} rows, the record says {split.samples}"))
            continue
        found.append(table)
    if len(found) != 2:
        return None
    tables = _Tables(found[0], found[1], frozenset(each.key for each in split.damaged))
    kinds = typed.kinds(located.record.fields)
    scalars = [each for each, kind in kinds.items() if kind not in typed.MEMBERS]
    expected = index.columns(scalars, "label" in located.record.fields, typed.stems(kinds))
    missing = [column for column in expected if column not in tables.index.column_names]
    if missing:
        problems.append(Problem(split.index, f"has no column {', '.join(missing)}"))
        return None
    problems += _agreement(name, split, tables)
    return tables


def _agreement(name: str, split: SplitEntry, tables: _Tables) -> Iterator[Problem]:
    """Locate rows against the index, and both against the record."""
    rows, table = tables.rows, tables.index
    columns = {"offset": "image_offset", "size": "image_size", "shard": "shard", "width": "width", "height": "height"}
    if "label" in table.column_names:
        columns["label"] = "label"
    for ours, theirs in columns.items():
        differ = np.flatnonzero(rows[ours].astype(np.int64) != table[theirs].to_numpy().astype(np.int64))
        if len(differ):
            yield Problem(split.locate, f"{ours} differs from the index in {_some_rows(differ)}")
    shards = np.repeat(np.arange(len(split.shards)), [each.samples for each in split.shards])
    if len(shards) == len(rows) and (misplaced := np.flatnonzero(rows["shard"] != shards)).size:
        yield Problem(split.locate, f"shard differs from the record in {_some_rows(misplaced)}")
    labels = rows["label"][rows["label"] >= 0]
    if split.histogram and np.bincount(labels, minlength=len(split.histogram)).tolist() != split.histogram:
        yield Problem(f"{FILENAME}: splits.{name}", "the histogram is not that of the labels")


def _some_rows(numbers: np.ndarray[Any, Any]) -> str:
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"row {', '.join(map(str, numbers[:SHOWN].tolist()))}{more}"


class _Damage(Exception):
    """One thing wrong with one sample; never leaves this module."""


@dataclass(frozen=True)
class _Shard:
    located: Located
    split: str
    number: int
    first: int
    tables: _Tables

    @property
    def entry(self) -> SplitEntry:
        return self.located.record.splits[self.split]

    @property
    def path(self) -> Path:
        return self.located.path / self.entry.shards[self.number].path

    @property
    def files(self) -> set[str]:
        """The files the check of this shard reads, as the record names them."""
        path = self.entry.shards[self.number].path
        return {path, offsets_name(path)}

    def problems(self) -> list[Problem]:
        try:
            return self._problems()
        except OSError as error:
            return [Problem(self.path.name, f"cannot be read: {error.strerror or error}")]

    def _problems(self) -> list[Problem]:
        samples = self.entry.shards[self.number].samples
        name = offsets_name(self.path.name)
        offsets = np.fromfile(self.located.path / name, "<u8").astype(np.int64)
        size = self.path.stat().st_size
        if len(offsets) != samples + 1 or offsets[0] != 0 or (np.diff(offsets) <= 0).any():
            return [Problem(name, f"does not hold the ascending offsets of {samples} samples and their end")]
        if offsets[-1] > size:
            return [Problem(name, f"ends at byte {offsets[-1]}, the shard at {size}")]
        columns = self.tables.index.slice(self.first, samples).to_pydict()
        found: list[Problem] = []
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for at in range(samples):
                start, end = int(offsets[at]), int(offsets[at + 1])
                try:
                    self._sample(at, start, os.pread(descriptor, end - start, start), columns)
                except _Damage as damage:
                    found.append(Problem(self.path.name, f"{self._key(at)}: {damage}"))
            if os.pread(descriptor, 2 * HEADER, int(offsets[-1])) != bytes(2 * HEADER):
                found.append(Problem(self.path.name, f"is not ended by zero blocks at byte {offsets[-1]}"))
        finally:
            os.close(descriptor)
        if len(found) > SHOWN:
            found[SHOWN:] = [Problem(self.path.name, f"and {len(found) - SHOWN} more problems")]
        return found

    def _sample(self, at: int, start: int, data: bytes, columns: dict[str, list[Any]]) -> None:
        """Check the sample whose members are ``data``, from byte ``start`` of the shard."""
        key = self._key(at)
        fields = self.located.record.fields
        members = _members(data, start)
        expected = {f"{key}.{spec.extension}" for spec in fields.values()}
        if set(members) != expected:
            raise _Damage(f"has members {', '.join(members)} in place of {', '.join(sorted(expected))}")
        row = {name: values[at] for name, values in columns.items()}
        if row["key"] != key:
            raise _Damage(f"the index calls it {row['key']}")
        offset, image = members[f"{key}.{fields['image'].extension}"]
        if (offset, len(image)) != (row["image_offset"], row["image_size"]):
            raise _Damage(f"its image is {len(image)} bytes at {offset}, not as the index says")
        if "label" in fields and members[f"{key}.{fields['label'].extension}"][1] != b"%d" % row["label"]:
            raise _Damage(f"its label member is not {row['label']}, as the index says")
        self._further(key, members, row)
        if hashlib.sha256(image).hexdigest() != row["sha256"]:
            raise _Damage("the SHA-256 of its image is not as the index says")
        if key not in self.tables.damaged:
            _decode(image, row)

    def _key(self, at: int) -> str:
        return key_of(self.split, self.entry.number(self.first + at))

    def _further(self, key: str, members: dict[str, tuple[int, bytes]], row: dict[str, Any]) -> None:
        found = {name.removeprefix(f"{key}."): member for name, member in members.items()}
        try:
            check_further(self.located.record.fields, found, row, whole=key not in self.tables.damaged)
        except ValueError as error:
            raise _Damage(str(error)) from error


def _members(data: bytes, start: int) -> dict[str, tuple[int, bytes]]:
    """Member name -> (offset in the shard, content) of the USTAR members end to end in ``data``."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while at < len(data):
        head = data[at : at + HEADER]
        try:
            summed = sum(head) - sum(head[148:156]) + 8 * ord(" ")
            if (
                head[257:263] != b"ustar\0"
                or head[156:157] not in b"0\0"
                or summed != int(head[148:156].rstrip(b"\0 "), 8)
            ):
                raise ValueError
            size = int(head[124:136].rstrip(b"\0 "), 8)
            name = head[:100].rstrip(b"\0").decode("ascii")
        except (ValueError, IndexError):
            raise _Damage(f"no tar header at byte {start + at}") from None
        content = data[at + HEADER : at + HEADER + size]
        if len(content) != size or name in found:
            raise _Damage(f"{name!r} at byte {start + at} is cut short or there twice")
        found[name] = (start + at + HEADER, content)
        at += HEADER + size + -size % HEADER
    return found


def _decode(data: bytes, row: dict[str, Any]) -> None:
    """Decode an image whose header says the format and size that ``row`` does."""
    try:
        with Image.open(io.BytesIO(checked(data)), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXEL_CAP:
                raise _Damage(f"its image of {width} x {height} pixels is above the cap of {PIXEL_CAP}")
            if (width, height) != (row["width"], row["height"]):
                raise _Damage(f"its image is {width} x {height}, the index says {row['width']} x {row['height']}")
            if str(image.format).lower() != row["format"]:
                raise _Damage(f"its image is {image.format}, the index says {row['format']}")
            image.load()
    except _Damage:
        raise
    except Exception as error:  # Pillow's plugins parse in Python, which raises wherever damaged bytes lead it
        raise _Damage(f"its image does not decode: {error}") from error
