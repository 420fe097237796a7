"""What one shard's scan found, kept as a file: ``derived/shards/<key>.arrow``, Arrow IPC with `About` in its metadata.

The key is of the shard's place and facts, so that of many shards only those that changed are scanned again, and a scan
that was killed goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa

from datahub.core import atomic
from datahub.core.learning import learn
from datahub.core.settings import Settings
from datahub.store.arrow import array
from datahub.store.paths import DERIVED
from datahub.stream.foreign.facts import Facts
from datahub.stream.foreign.scan import COLUMNS, Scanned

SHARDS = "shards"
ABOUT = b"datahub"
NUMBERS = ("image_offset", "image_size")
NARROW = ("width", "height")
KINDS = {name: pa.int64() if name in NUMBERS else pa.int32() if name in NARROW else pa.string() for name in COLUMNS}


class About(msgspec.Struct, frozen=True, kw_only=True):
    """``seen`` digests what was looked at; ``raw`` are the block digests of a shard that was read whole, else empty."""

    seen: str
    raw: bytes
    passed: dict[str, int]


@dataclass(frozen=True, slots=True)
class Part:
    about: About
    table: pa.Table


def path_of(settings: Settings, facts: Facts) -> Path:
    return settings.home / DERIVED / SHARDS / f"{facts.key}.arrow"


def write(path: Path, found: Scanned, seen: str, raw: bytes) -> None:
    """Raises `DiskError`."""
    about = About(seen=seen, raw=raw, passed=dict(found.passed))
    fields = [pa.field(name, kind) for name, kind in KINDS.items()]
    columns = [array(found.columns[name], kind) for name, kind in KINDS.items()]
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields, {ABOUT: msgspec.json.encode(about)}))
    buffer = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(buffer, table.schema, options=options) as out:
        out.write_table(table)
    atomic.write_bytes(path, buffer.getvalue())


def read(path: Path) -> Part | None:
    """None where there is none, or what a crash of the machine left of one."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
        about = msgspec.json.decode(table.schema.metadata[ABOUT], type=About)
    except (OSError, pa.ArrowException, msgspec.DecodeError, KeyError, TypeError):
        return None
    return Part(about, table) if table.column_names == list(COLUMNS) else None


learn(About)
