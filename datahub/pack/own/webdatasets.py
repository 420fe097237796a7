"""``wds:SHARDS``: existing WebDataset shards, packed anew: folders, paths and URLs, with ``{000..099}`` and commas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datahub.core import atomic
from datahub.core.errors import BadArgument, LayoutError
from datahub.core.events import Listener, Progress
from datahub.pack import inventory, pictures
from datahub.pack.ground import open_fs, translated
from datahub.pack.inflate import STEP
from datahub.pack.inventory import Inventory
from datahub.pack.listed import Files, Listed
from datahub.pack.own import key_of, tables

if TYPE_CHECKING:
    from datahub.pack.sources import Reading

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
MOST = 100_000
IMAGES = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "ppm", "pgm")
SPLITS = re.compile(r"(?:^|[-_.])(train|val|validation|test|dev)(?=[-_.]|$)")
TEXT = 1 << 20
"""Bytes of a text member above which it is taken for a mistake."""


def open_shards(location: str, reading: Reading, scratch: Path, listener: Listener) -> Listed:
    urls = [url for part in parts(location) for url in expand(part)]
    shards = [shard for url in urls for shard in _local(url, scratch, listener)]
    identity = inventory.identity(shards)
    there = inventory.take(shards, scratch / f"files-{identity[:32]}", listener=listener)
    where = Path(location if len(location) < 80 else f"{location[:77]}...")
    splits = _splits(there) if reading.split is None else None
    found = _Grouped(where, there, splits or [""] * len(there.containers))
    facts = {"kind": "wds", "identity": identity, "split": str(reading.split)}
    rows = tables.Rows(
        path=where,
        table=pictures.table(there, found.images, None),
        names=found.names,
        labels=found.labels,
        splits=[splits[container] for container in found.containers()] if splits else None,
        further=found.further,
    )
    notes = [f"{len(found.images):,} samples in {len(shards)} shards", *found.notes()]
    return tables.write(scratch / f"{key_of(facts)}-samples", there, rows, reading.split, facts, notes)


def parts(location: str) -> Iterator[str]:
    """Cut at commas that are not in braces, and at ``::``."""
    depth, start = 0, 0
    text = location.replace("::", ",")
    for at, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def expand(pattern: str) -> list[str]:
    """``{000..099}`` (with its zeros) and ``{a,b}``, as shells and webdataset have them. Raises `BadArgument`."""
    choices: list[list[str]] = []
    last = 0
    total = 1
    for found in BRACES.finditer(pattern):
        choices.append([pattern[last : found.start()]])
        if found[3] is None:
            low, high, width = int(found[1]), int(found[2]), len(found[1])
            total *= max(0, high - low + 1)
            if not 0 < total <= MOST:
                raise BadArgument("source", pattern, f"stands for {total} shards", f"give 1 to {MOST}")
            choices.append([f"{number:0{width}d}" for number in range(low, high + 1)])
        else:
            choices.append(found[3].split(","))
        last = found.end()
    choices.append([pattern[last:]])
    return ["".join(each) for each in product(*choices)]


def _local(url: str, scratch: Path, listener: Listener) -> list[Path]:
    """Paths of the shards that ``url`` stands for; remote ones are copied into ``scratch`` first."""
    if "://" in url:
        return [_copied(url, scratch, listener)]
    path = inventory.check_root(Path(url).expanduser())
    if not path.is_dir():
        return [path]
    shards = sorted(each for each in path.iterdir() if inventory.ARCHIVE.search(each.name.encode()))
    if not shards:
        raise LayoutError(str(path), "", "holds no shards (.tar, .tar.gz, ...)")
    return shards


def _copied(url: str, scratch: Path, listener: Listener) -> Path:
    with translated(url):
        fs, path = open_fs(url)
        facts = fs.info(path)
        size = facts.get("size")
        mark = key_of(url, size, facts.get("ETag") or facts.get("etag") or facts.get("LastModified"))
        target = scratch / f"shard-{mark}" / url.rpartition("/")[2].partition("?")[0]
        if target.exists() and (size is None or target.stat().st_size == size):
            return target
        done = 0
        with fs.open(path, "rb") as source, atomic.writing(target) as out:
            while piece := source.read(STEP):
                out.write(piece)
                done += len(piece)
                listener(Progress("download", target.name, done, size))
        if size is not None and done != size:
            raise LayoutError(url, "", f"truncated: {done} of {size} bytes came")
    return target


@dataclass
class _Grouped:
    """Members gathered into samples: those that stand together and share their name up to the first dot."""

    path: Path
    there: Inventory
    split_of: list[str]
    """The split of each container; keys are unique in one."""
    images: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    labels: list[Any] | None = None
    further: dict[str, list[Any]] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._files = Files(list(self.there.containers), self.there.folder)
        self._rows = [self.there.members[name].to_pylist() for name in inventory.SCHEMA.names]
        samples = list(self._samples())
        if not samples:
            raise LayoutError(str(self.path), "", "holds no samples with images")
        labelled = [("cls" in members) for members in samples]
        if any(labelled):
            if not all(labelled):
                where = self._name(next(iter(samples[labelled.index(False)].values())))
                raise LayoutError(str(self.path), where, "has no .cls, as others have")
            self.labels = [self._text(members["cls"]).strip() for members in samples]
        for extension, name in (("json", "json"), ("txt", "text")):
            if any(extension in members for members in samples):
                values = [self._text(m[extension]) if extension in m else None for m in samples]
                self.further[name] = [self._parsed(v) for v in values] if extension == "json" else values

    def _samples(self) -> Iterator[dict[str, int]]:
        """Extension -> row of the inventory, of every sample that has an image."""
        current: tuple[int, bytes] | None = None
        members: dict[str, int] = {}
        seen: set[tuple[str, bytes]] = set()
        for row, (container, name) in enumerate(zip(self._rows[0], self._rows[6], strict=True)):
            folder, stem, extension = _key(name)
            key = (container, folder + stem)
            if not extension or not stem:
                continue
            if key != current:
                yield from self._whole(members, seen)
                current, members = key, {}
            kind = extension[1:].decode("utf-8", "replace").lower()
            if kind in members:
                raise LayoutError(str(self.path), pictures.text(name), "is there twice")
            members[kind] = row
        yield from self._whole(members, seen)

    def _whole(self, members: dict[str, int], seen: set[tuple[str, bytes]]) -> Iterator[dict[str, int]]:
        if not members:
            return
        image = next((members[kind] for kind in IMAGES if kind in members), None)
        for kind in members:
            if kind not in (*IMAGES, "cls", "json", "txt") or (kind in IMAGES and members[kind] != image):
                self.passed[kind] = self.passed.get(kind, 0) + 1
        if image is None:
            if "cls" in members:
                raise LayoutError(str(self.path), self._name(members["cls"]), "has no image beside it")
            return
        name = self._rows[6][image]
        key = self.split_of[self._rows[0][image]], b"".join(_key(name))
        if key in seen:
            raise LayoutError(str(self.path), pictures.text(name), "is the key of two samples")
        seen.add(key)
        self.images.append(image)
        self.names.append(name)
        yield members

    def containers(self) -> list[int]:
        """Where each sample's image is."""
        return [self._rows[0][row] for row in self.images]

    def _name(self, row: int) -> str:
        return pictures.text(self._rows[6][row])

    def _text(self, row: int) -> str:
        place = [column[row] for column in self._rows]
        if place[3] > TEXT:
            raise LayoutError(str(self.path), self._name(row), f"has {place[3]} bytes, too many for a text")
        return self._files.read(*place).decode("utf-8", "replace")

    def _parsed(self, text: str | None) -> Any:
        try:
            value = None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            value = text
        return value if isinstance(value, dict | list | None) else [value]

    def notes(self) -> list[str]:
        found = [f"{count} .{kind}" for kind, count in sorted(self.passed.items())]
        return [f"passed over: {', '.join(found)} members"] if found else []


def _key(name: bytes) -> tuple[bytes, bytes, bytes]:
    """A member's folder, stem and extension: ``a/b.c/`` ``d`` ``.cls.json``."""
    folder, slash, base = name.rpartition(b"/")
    stem, dot, extension = base.partition(b".")
    return folder + slash, stem, dot + extension


def _splits(there: Inventory) -> list[str] | None:
    """The split of each shard by its name, where every one says train, val or test."""
    found = [SPLITS.search(Path(container.shown or container.path).name) for container in there.containers]
    return [each[1] for each in found if each] if all(found) else None
