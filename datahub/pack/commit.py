"""The commit: index, locate rows, metadata, `blocks.bin`, and the record last, all on the plan's ground."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa

from datahub.core.errors import LayoutError
from datahub.pack import metadata, plan, summary
from datahub.pack.ground import put
from datahub.pack.images import EXTENSIONS
from datahub.pack.plan import PackPlan
from datahub.pack.shard import Done
from datahub.pack.stats import Sums
from datahub.store import blocks, index, locate, record, typed
from datahub.store.arrow import array, numbers
from datahub.store.blocks import FileDigests
from datahub.store.paths import index_name, key_of, locate_name, offsets_name, wids_name
from datahub.store.record import DamagedEntry, FieldSpec, FileEntry, Record, ShardEntry, SplitEntry

Files = list[tuple[str, str, FileDigests]]
"""(name, role, digests) of what the variant holds, in the record's order."""


MANIFEST = "manifest.json"
"""The manifest, so that a dataset no catalog knows can be packed as another variant."""


def write(packed: PackPlan, shards: dict[str, list[Done]]) -> Record:
    """Write everything but the shards; equal shards give equal bytes.

    Raises `LayoutError` where so much was left out that a split is empty.
    """
    everything = shards
    shards = {split: [each for each in done if each.samples] for split, done in everything.items()}
    for split, done in shards.items():
        if not done:
            raise LayoutError(str(packed.ref), f"split {split}", "every image of it is damaged")
    packed = replace(packed, splits={split: sum(each.samples for each in done) for split, done in shards.items()})
    files: Files = []
    entries: dict[str, SplitEntry] = {}
    digests = {}
    fields = _fields(packed, shards)
    for split, done in shards.items():
        for each in done:
            files.append((each.name, "shard", FileDigests(each.bytes, each.sha256, bytes.fromhex(each.blocks))))
            size, sha256, raw = each.offsets
            files.append((offsets_name(each.name), "offsets", FileDigests(size, sha256, bytes.fromhex(raw))))
        table = _tables(packed, split, done, files)
        digests[split] = summary.digests(table)
        entry = _split(packed, split, done, fields, table, summary.duplicates(digests[split]))
        entries[split] = _with_damage(entry, split, everything[split])
    for name, data in _texts(packed, shards).items():
        _put(packed, name, "card" if name == "README.md" else "metadata", data, files)
    put(packed.ground, f"out/{record.BLOCKS}", b"".join(each.raw for _, _, each in files))
    made = _record(packed, entries, fields, files, summary.shared(digests))
    put(packed.ground, f"out/{record.FILENAME}", record.encode(made))
    return made


def _put(packed: PackPlan, name: str, role: str, data: bytes, files: Files) -> None:
    put(packed.ground, f"out/{name}", data)
    files.append((name, role, blocks.of_bytes(data)))


def _extension(packed: PackPlan) -> str:
    image = packed.fields["image"].extension
    return EXTENSIONS.get(image, image)


def _texts(packed: PackPlan, shards: dict[str, list[Done]]) -> dict[str, bytes]:
    extension = _extension(packed)
    texts = {wids_name(split): metadata.wids(packed.ref.name, split, done) for split, done in shards.items()}
    texts |= metadata.energon(packed, extension, shards)
    texts[MANIFEST] = msgspec.json.format(msgspec.json.encode(packed.manifest, order="sorted"), indent=1) + b"\n"
    texts["croissant.json"] = metadata.croissant(packed, extension, shards)
    texts["README.md"] = metadata.card(packed, shards)
    return texts


def _tables(packed: PackPlan, split: str, done: list[Done], files: Files) -> pa.Table:
    """Join the shards' rows into the split's index and locate rows, which are written; returns the index."""
    found = [packed.ground.get(f"work/{each.name}.rows") or b"" for each in done]
    table = pa.concat_tables([index.decode(data) for data in found])
    del found
    places = np.repeat(np.arange(len(done), dtype=np.int32), [each.samples for each in done])
    # Shards that were left out for want of samples do not count.
    table = table.set_column(table.column_names.index("shard"), "shard", array(places, pa.int32()))
    rows = np.empty(len(table), locate.LOCATE)
    for name, column in (
        ("offset", "image_offset"),
        ("size", "image_size"),
        ("shard", "shard"),
        ("width", "width"),
        ("height", "height"),
    ):
        rows[name] = numbers(table[column])
    rows["label"] = numbers(table["label"]) if "label" in table.column_names else -1
    _put(packed, locate_name(split), "locate", locate.encode(rows), files)
    kinds = {name: spec.type for name, spec in packed.fields.items()}
    columns = {name: table[name] for name in table.column_names}
    _put(packed, index_name(split), "index", index.encode(columns, kinds), files)
    return table


def _record(
    packed: PackPlan,
    splits: dict[str, SplitEntry],
    fields: dict[str, FieldSpec],
    files: Files,
    shared: dict[str, int],
) -> Record:
    manifest = packed.manifest
    return Record(
        manifest=record.ManifestEntry(name=manifest.name, version=manifest.version, digest=manifest.digest),
        variant=packed.variant,
        plan=packed.digest,
        packer=record.PackerEntry(format=plan.FORMAT, options=packed.options),
        files=[
            FileEntry(path=name, role=role, bytes=d.bytes, sha256=d.sha256, blocks=d.blocks) for name, role, d in files
        ],
        fields=fields,
        splits=splits,
        classes=packed.classes,
        words=packed.words,
        shared=shared,
        title=manifest.title,
        homepage=manifest.homepage or "",
        licence=manifest.licence.id,
        task=manifest.task,
    )


def _fields(packed: PackPlan, shards: dict[str, list[Done]]) -> dict[str, FieldSpec]:
    shapes = {tuple(each.shape) if each.shape else None for done in shards.values() for each in done}
    shape = next(iter(shapes)) if len(shapes) == 1 else None
    fields = {"image": FieldSpec(type="image", extension=_extension(packed), shape=list(shape) if shape else None)}
    for name, spec in packed.fields.items():
        if name == "label":
            fields[name] = FieldSpec(type="label", extension="cls")
        elif name != "image":
            fields[name] = spec if spec.type in typed.TYPES else FieldSpec(type=spec.type, extension="json")
    return fields


def _with_damage(entry: SplitEntry, split: str, done: list[Done]) -> SplitEntry:
    """What was damaged, in shards that are left without samples, too."""
    damaged = [
        DamagedEntry(key=key_of(split, each.number), source=each.source, reason=each.reason)
        for d in done
        for each in d.damaged
    ]
    gaps = [number for each in done for number in each.gaps]
    return msgspec.structs.replace(entry, damaged=damaged, gaps=gaps)


def _split(
    packed: PackPlan,
    split: str,
    done: list[Done],
    fields: dict[str, FieldSpec],
    table: pa.Table,
    duplicates: int,
) -> SplitEntry:
    sums = Sums()
    kept: dict[str, int] = {}
    for each in done:
        sums.merge(Sums(**each.stats))
        for reason, count in each.kept.items():
            kept[reason] = kept.get(reason, 0) + count
    histogram = np.sum([each.histogram for each in done], axis=0).tolist() if "label" in packed.fields else []
    return SplitEntry(
        samples=packed.splits[split],
        shards=[ShardEntry(path=each.name, samples=each.samples) for each in done],
        block=packed.options["block"],
        locate=locate_name(split),
        index=index_name(split),
        fingerprint=record.fingerprint(split, fields, packed.options["block"], [(d.samples, d.sha256) for d in done]),
        histogram=histogram,
        stats=sums.result(full=packed.options["stats"] == "full" or packed.splits[split] <= sums.images),
        permuted=packed.permuted,
        kept=dict(sorted(kept.items())),
        formats=summary.formats(table),
        sizes=summary.sizes(table),
        duplicates=duplicates,
    )
