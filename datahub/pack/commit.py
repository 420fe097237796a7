"""The commit: index, locate rows, metadata, `blocks.bin`, and the record last, all in the building folder."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from datahub.core import atomic
from datahub.pack import metadata, plan
from datahub.pack.images import EXTENSIONS
from datahub.pack.plan import PackPlan
from datahub.pack.shard import Done
from datahub.pack.stats import Sums
from datahub.store import blocks, index, locate, record
from datahub.store.blocks import FileDigests
from datahub.store.paths import index_name, locate_name, offsets_name, wids_name
from datahub.store.record import FieldSpec, FileEntry, Record, ShardEntry, SplitEntry


def write(packed: PackPlan, shards: dict[str, list[Done]]) -> Record:
    """Write everything but the shards into ``out/``; equal shards give equal bytes."""
    out = packed.building / "out"
    files: list[tuple[str, str, FileDigests]] = []
    for split, done in shards.items():
        _tables(packed, split, done)
        for each in done:
            files.append((each.name, "shard", FileDigests(each.bytes, each.sha256, bytes.fromhex(each.blocks))))
            size, sha256, raw = each.offsets
            files.append((offsets_name(each.name), "offsets", FileDigests(size, sha256, bytes.fromhex(raw))))
        for name, role in ((locate_name(split), "locate"), (index_name(split), "index")):
            files.append((name, role, blocks.of_file(out / name)))
    for name, data in _texts(packed, shards).items():
        atomic.write_bytes(out / name, data)
        files.append((name, "card" if name == "README.md" else "metadata", blocks.of_bytes(data)))
    atomic.write_bytes(out / record.BLOCKS, b"".join(digests.raw for _, _, digests in files))
    made = _record(packed, shards, files)
    record.write(out, made)
    return made


def _extension(packed: PackPlan) -> str:
    image = packed.fields["image"].extension
    return EXTENSIONS.get(image, image)


def _texts(packed: PackPlan, shards: dict[str, list[Done]]) -> dict[str, bytes]:
    extension = _extension(packed)
    texts = {wids_name(split): metadata.wids(packed.ref.name, split, done) for split, done in shards.items()}
    texts |= metadata.energon(packed, extension, shards)
    texts["croissant.json"] = metadata.croissant(packed, extension, shards)
    texts["README.md"] = metadata.card(packed, shards)
    return texts


def _tables(packed: PackPlan, split: str, done: list[Done]) -> None:
    """Join the shards' rows into the split's index and locate rows."""
    building = packed.building
    table = pa.concat_tables([index.read(building / "work" / f"{each.name}.rows") for each in done])
    index.write(building / "out" / index_name(split), {name: table[name] for name in table.column_names})
    rows = np.empty(len(table), locate.LOCATE)
    for name, column in (
        ("offset", "image_offset"),
        ("size", "image_size"),
        ("shard", "shard"),
        ("width", "width"),
        ("height", "height"),
    ):
        rows[name] = table[column].to_numpy()
    rows["label"] = table["label"].to_numpy() if "label" in table.column_names else -1
    locate.write(building / "out" / locate_name(split), rows)


def _record(packed: PackPlan, shards: dict[str, list[Done]], files: list[tuple[str, str, FileDigests]]) -> Record:
    manifest = packed.manifest
    fields = _fields(packed, shards)
    return Record(
        manifest=record.ManifestEntry(name=manifest.name, version=manifest.version, digest=manifest.digest),
        variant=packed.variant,
        plan=packed.digest,
        packer=record.PackerEntry(format=plan.FORMAT, options=packed.options),
        files=[
            FileEntry(path=name, role=role, bytes=d.bytes, sha256=d.sha256, blocks=d.blocks) for name, role, d in files
        ],
        fields=fields,
        splits={split: _split(packed, split, done, fields) for split, done in shards.items()},
        classes=packed.classes,
        title=manifest.title,
        homepage=manifest.homepage or "",
        licence=manifest.licence.id,
        task=manifest.task,
    )


def _fields(packed: PackPlan, shards: dict[str, list[Done]]) -> dict[str, FieldSpec]:
    shapes = {tuple(each.shape) if each.shape else None for done in shards.values() for each in done}
    shape = next(iter(shapes)) if len(shapes) == 1 else None
    fields = {"image": FieldSpec(type="image", extension=_extension(packed), shape=list(shape) if shape else None)}
    for name in packed.fields:
        if name == "label":
            fields[name] = FieldSpec(type="label", extension="cls")
        elif name != "image":
            fields[name] = FieldSpec(type="int", extension="json")
    return fields


def _split(packed: PackPlan, split: str, done: list[Done], fields: dict[str, FieldSpec]) -> SplitEntry:
    sums = Sums()
    for each in done:
        sums.merge(Sums(**each.stats))
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
    )
