"""From the parts of all shards to the folder that a packed variant has, less its shards: record, tables, digests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datahub.core import atomic
from datahub.core.errors import LayoutError
from datahub.pack.own import tables
from datahub.pack.own.webdatasets import SPLITS
from datahub.pack.plan import BLOCK
from datahub.store import blocks, locate, record
from datahub.store.arrow import array, numbers
from datahub.store.blocks import FileDigests
from datahub.store.index import ROW_GROUP
from datahub.store.paths import index_name, locate_name
from datahub.store.record import FieldSpec, FileEntry, Record, ShardEntry, SplitEntry
from datahub.stream.foreign.facts import Facts
from datahub.stream.foreign.parts import Part

VARIANT = "wds"
"""What shards without our record go by, where the caller names no variant."""
MOST_FIELDS = 64
"""Extensions beside those that are read."""
TEXTS = {"json": "json", "text": "txt"}
"""Fields that are in the index -> their extension."""
Int = NDArray[np.int64]


class Merging:
    """The shards ``facts``, whose scans are ``found``."""

    def __init__(self, facts: Sequence[Facts], found: Sequence[Part], shown: str) -> None:
        self._facts, self._found, self._shown = facts, found, shown
        self._splits = _split_of(facts)
        self._labels, self._classes = self._labelled()
        self._others = self._other_fields()
        self._fields = self._kinds()

    def write(self, folder: Path) -> Record:
        """Write the tables, and the record last. Raises `LayoutError` or `DiskError`."""
        files = [self._shard(each, part) for each, part in zip(self._facts, self._found, strict=True)]
        entries = {}
        for split in dict.fromkeys(self._splits):
            entries[split] = self._split(folder, split, files)
        whole = all(part.about.raw for part, facts in zip(self._found, self._facts, strict=True) if facts.size)
        if whole:
            blocks.write(folder, (digests.raw for _, digests in files))
        made = Record(
            manifest=record.ManifestEntry(name="shards", version="0", digest=""),
            variant=VARIANT,
            plan="",
            packer=record.PackerEntry(name="webdataset"),
            files=[entry for entry, _ in files],
            fields=self._fields,
            splits=entries,
            classes=self._classes,
        )
        record.write(folder, made)
        return made

    def passed(self) -> Counter[str]:
        """Fields of samples that have no image, and how often."""
        total: Counter[str] = Counter()
        for part in self._found:
            total.update(part.about.passed)
        return total

    # -- what all shards have in common -------------------------------------------------------------------------------

    def _labelled(self) -> tuple[Int | None, list[str]]:
        """Every sample's label, shard after shard, and the classes: of ``.cls``, else of ``label`` in the JSON."""
        labels = self._column("cls")
        if not any(each is not None for each in labels):
            labels = [] if "label" not in self._json_keys() else [_label(each) for each in self._column("json")]
            if not labels or any(each is None for each in labels):
                return None, []
        if None in labels:
            at = labels.index(None)
            raise LayoutError(self._shown_at(at), self._column("source")[at], "has no .cls beside it, as others have")
        sources = pa.table({"source": array(self._column("source"), pa.string())})
        rows = tables.Rows(path=Path(self._shown), table=sources, names=[], labels=labels)
        found, classes = tables.numbered(rows)
        return np.array(found, np.int64), classes

    def _json_keys(self) -> set[str]:
        """Keys of the first sample's document, where it is an object."""
        first = next((each for part in self._found for each in part.table["json"].slice(0, 1).to_pylist()), None)
        value = None if first is None else json.loads(first)
        return set(value) if isinstance(value, dict) else set()

    def _kinds(self) -> dict[str, FieldSpec]:
        extensions = Counter(each for part in self._found for each in part.table["extension"].to_pylist())
        extension = min(extensions, key=lambda each: (-extensions[each], each))
        found = {"image": FieldSpec(type="image", extension=extension, shape=self._shape())}
        if self._labels is not None:
            found["label"] = FieldSpec(type="label", extension="cls")
        for name, extension in TEXTS.items():
            if any(len(part.table) > part.table[name].null_count for part in self._found):
                found[name] = FieldSpec(type=name, extension=extension)
        return found | {name: FieldSpec(type="bytes", extension=kind) for kind, name in self._others.items()}

    def _other_fields(self) -> dict[str, str]:
        """Extension of members that are only located -> the field that gives their bytes."""
        kinds = {
            kind
            for part in self._found
            for each in part.table["others"].to_pylist()
            if each
            for kind in json.loads(each)
        }
        if len(kinds) > MOST_FIELDS:  # extensions that number something: no two samples share one
            return {}
        named = tables.field_names(sorted(kinds))
        return {kind: f"{name}_bytes" if name in TEXTS else name for kind, name in named.items()}

    def _shape(self) -> list[int] | None:
        """(H, W, 3) where the headers of all images say so."""
        sizes = {
            (height, width)
            for part in self._found
            for height, width in set(zip(numbers(part.table["height"]), numbers(part.table["width"]), strict=True))
        }
        (height, width), *others = sizes
        return None if others or not height else [int(height), int(width), 3]

    def _column(self, name: str) -> list[Any]:
        return [value for part in self._found for value in part.table[name].to_pylist()]

    def _shown_at(self, row: int) -> str:
        for facts, part in zip(self._facts, self._found, strict=True):
            if row < len(part.table):
                return facts.named.shown
            row -= len(part.table)
        return self._shown

    # -- files --------------------------------------------------------------------------------------------------------

    def _shard(self, facts: Facts, part: Part) -> tuple[FileEntry, FileDigests]:
        """What the record says of a shard: its digests where it was read whole."""
        digests = FileDigests(facts.size, "", part.about.raw)
        blocks_digest = digests.blocks if part.about.raw else ""
        entry = FileEntry(path=facts.named.name, role="shard", bytes=facts.size, sha256="", blocks=blocks_digest)
        return entry, digests

    def _split(self, folder: Path, split: str, files: list[tuple[FileEntry, FileDigests]]) -> SplitEntry:
        mine = [at for at, name in enumerate(self._splits) if name == split]
        counts = [len(self._found[at].table) for at in mine]
        labels = self._labels_of(mine)
        rows = np.empty(sum(counts), locate.LOCATE)
        rows["shard"] = np.repeat(np.arange(len(mine)), counts)
        rows["label"] = -1 if labels is None else labels
        for name, column in (
            ("offset", "image_offset"),
            ("size", "image_size"),
            ("width", "width"),
            ("height", "height"),
        ):
            rows[name] = np.concatenate([numbers(self._found[at].table[column]) for at in mine])
        locate.write(folder / locate_name(split), rows)
        with atomic.writing(folder / index_name(split)) as file:
            self._index(file, mine, rows)
        for name, role in ((locate_name(split), "locate"), (index_name(split), "index")):
            digests = blocks.of_file(folder / name)
            entry = FileEntry(path=name, role=role, bytes=digests.bytes, sha256=digests.sha256, blocks=digests.blocks)
            files.append((entry, digests))
        seen = [(count, self._found[at].about.seen) for at, count in zip(mine, counts, strict=True)]
        formats = Counter(each for at in mine for each in self._found[at].table["format"].to_pylist())
        return SplitEntry(
            samples=sum(counts),
            shards=[ShardEntry(path=self._facts[at].named.name, samples=n) for at, n in zip(mine, counts, strict=True)],
            block=BLOCK,
            locate=locate_name(split),
            index=index_name(split),
            fingerprint=record.fingerprint(split, self._fields, BLOCK, seen),
            histogram=[] if labels is None else np.bincount(labels, minlength=len(self._classes)).tolist(),
            stats=None,
            permuted=False,
            formats={name or "unknown": count for name, count in sorted(formats.items())},
        )

    def _labels_of(self, mine: list[int]) -> Int | None:
        if self._labels is None:
            return None
        edges = np.cumsum([0, *(len(part.table) for part in self._found)])
        return np.concatenate([self._labels[edges[at] : edges[at + 1]] for at in mine])

    def _index(self, file: Any, mine: list[int], rows: Any) -> None:
        """The split's Parquet index, a shard at a time."""
        first = 0
        writer: pq.ParquetWriter | None = None
        for shard, at in enumerate(mine):
            table = self._found[at].table
            labels = rows["label"][first : first + len(table)]
            first += len(table)
            found = pa.table(dict(self._columns(table, shard, labels)))
            if writer is None:
                writer = pq.ParquetWriter(file, found.schema, version="2.6", compression="zstd", store_schema=False)
            if len(found):
                writer.write_table(found, row_group_size=ROW_GROUP)
        if writer is not None:
            writer.close()

    def _columns(self, table: pa.Table, shard: int, labels: Any) -> Iterator[tuple[str, Any]]:
        yield "key", table["key"]
        yield "source", table["source"]
        yield "shard", array(np.full(len(table), shard), pa.int32())
        yield "image_offset", table["image_offset"]
        yield "image_size", table["image_size"]
        if "label" in self._fields:
            yield "label", array(labels, pa.int64())
        for name in TEXTS:
            if name in self._fields:
                yield name, table[name]
        yield "width", table["width"]
        yield "height", table["height"]
        yield "format", table["format"]
        yield "sha256", table["sha256"]
        yield from self._places(table)

    def _places(self, table: pa.Table) -> Iterator[tuple[str, Any]]:
        """Where the other members are; one that a sample lacks is empty."""
        there = [json.loads(each) if each else {} for each in table["others"].to_pylist()] if self._others else []
        starts = table["image_offset"].to_pylist()
        for kind, name in self._others.items():
            places = [each.get(kind, (start, 0)) for each, start in zip(there, starts, strict=True)]
            yield f"{name}_offset", array([offset for offset, _ in places], pa.int64())
            yield f"{name}_size", array([size for _, size in places], pa.int64())


def _split_of(facts: Sequence[Facts]) -> list[str]:
    """The split of each shard by its name, where every one says train, val or test; else they are all train."""
    found = [SPLITS.search(each.named.name.rpartition("/")[2]) for each in facts]
    return [each[1] for each in found if each] if all(found) else ["train"] * len(facts)


def _label(document: str | None) -> Any:
    value = None if document is None else json.loads(document)
    label = value.get("label") if isinstance(value, dict) else None
    return label if isinstance(label, int | str) and not isinstance(label, bool) else None
