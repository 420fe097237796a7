"""The files that let other readers open a variant unchanged: wids, Energon, Hugging Face, Croissant."""

from __future__ import annotations

import json
from typing import Any

from datahub.core.sizes import format_bytes
from datahub.pack.plan import PackPlan
from datahub.pack.shard import Done
from datahub.store.paths import index_name

ENERGON_VERSION = "7.0.0"
"""The metadata format Energon's readers check; its own `prepare` writes its version here."""


def wids(dataset: str, split: str, shards: list[Done]) -> bytes:
    """The index of `wids` (webdataset's random access reader)."""
    # Its optional md5sum is left out: no reader asks for it, and it would cost a third of the packing of JPEGs.
    entries = [{"url": s.name, "nsamples": s.samples, "filesize": s.bytes} for s in shards]
    return _json(
        {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": f"{dataset}-{split}", "shardlist": entries}
    )


def energon(plan: PackPlan, extension: str, shards: dict[str, list[Done]]) -> dict[str, bytes]:
    """``.nv-meta/``: shard counts, which split each shard is in, and how members become a sample."""
    counts = {s.name: s.samples for split in shards.values() for s in split}
    parts = {_energon_split(name): [s.name for s in split] for name, split in shards.items()}
    lines = ["exclude: []", "split_parts:"]
    for name, names in parts.items():
        lines += [f"  {name}:", *(f"  - {each}" for each in names)]
    labelled = "label" in plan.fields
    kind = "ImageClassificationSample" if labelled else "ImageSample"
    field_map = ["  image: " + extension, *(["  label: cls"] if labelled else [])]
    dataset = ["sample_type:", "  __module__: megatron.energon", f"  __class__: {kind}", "field_map:", *field_map]
    return {
        ".nv-meta/.info.json": _json({"energon_version": ENERGON_VERSION, "shard_counts": counts}),
        ".nv-meta/split.yaml": _text(lines),
        ".nv-meta/dataset.yaml": _text(dataset),
    }


def _energon_split(name: str) -> str:
    """Energon knows its splits as train, val and test."""
    return {"validation": "val"}.get(name, name)


def card(plan: PackPlan, shards: dict[str, list[Done]]) -> bytes:
    """The dataset card: YAML front matter that Hugging Face reads (it must name the tars), then words."""
    manifest = plan.manifest
    samples = sum(plan.splits.values())
    front = ["---", f"pretty_name: {json.dumps(manifest.title)}"]
    if manifest.licence.id:
        front.append(f"license: {manifest.licence.id.lower()}")
    front += ["task_categories:", f"- {manifest.task}", "size_categories:", f"- {_size_category(samples)}", "configs:"]
    front += ["- config_name: default", "  data_files:"]
    for split, done in shards.items():
        front += [f"  - split: {split}", "    path:", *(f"    - {each.name}" for each in done)]
    front += ["---", ""]
    body = (
        [f"# {manifest.title}", "", manifest.description, ""] if manifest.description else [f"# {manifest.title}", ""]
    )
    body += ["| split | samples | shards | size |", "|---|---|---|---|"]
    for split, done in shards.items():
        size = format_bytes(sum(each.bytes for each in done))
        body.append(f"| {split} | {plan.splits[split]:,} | {len(done)} | {size} |")
    licence = manifest.licence.id or manifest.licence.note or "not stated by the publisher"
    body += ["", f"Homepage: {manifest.homepage or 'none'}", "", f"Licence: {licence}", ""]
    if manifest.citation:
        body += ["```bibtex", manifest.citation.strip(), "```", ""]
    body.append(f"Packed as `{plan.ref}`: WebDataset shards; `dataset.json` lists every file with its SHA-256.")
    return _text(front + body)


def _size_category(samples: int) -> str:
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]
    return names[min(max(len(str(max(samples - 1, 1))) - 3, 0), len(names) - 1)]


def croissant(plan: PackPlan, extension: str, shards: dict[str, list[Done]]) -> bytes:
    """A Croissant 1.0 description (mlcommons.org/croissant/1.0): files with SHA-256, and one record set a split."""
    manifest = plan.manifest
    files: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for split, done in shards.items():
        for each in done:
            files.append(_file_object(each.name, each.bytes, each.sha256, "application/x-tar"))
        includes = [f"{each.name}" for each in done]
        files.append(
            {
                "@type": "cr:FileSet",
                "@id": f"{split}-images",
                "containedIn": [{"@id": name} for name in includes],
                "encodingFormat": "image/jpeg" if extension == "jpg" else f"image/{extension}",
                "includes": f"*.{extension}",
            }
        )
        records.append(_record_set(split, plan))
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description or manifest.title,
        "url": manifest.homepage or "",
        "license": manifest.licence.url or manifest.licence.id or "unknown",
        "citeAs": manifest.citation,
        "distribution": files,
        "recordSet": records,
    }
    return _json(document)


def _file_object(name: str, size: int, sha256: str, kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": kind,
        "sha256": sha256,
    }


def _record_set(split: str, plan: PackPlan) -> dict[str, Any]:
    def of(name: str, kind: str, extract: dict[str, str]) -> dict[str, Any]:
        source = {"fileSet": {"@id": f"{split}-images"}, "extract": extract}
        return {"@type": "cr:Field", "@id": f"{split}/{name}", "name": name, "dataType": kind, "source": source}

    fields = [
        of("image", "sc:ImageObject", {"fileProperty": "content"}),
        of("key", "sc:Text", {"fileProperty": "filename"}),
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"{plan.splits[split]} samples; labels stand in {index_name(split)}.",
        "field": fields,
    }


_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "recordSet": "cr:recordSet",
    "sc": "https://schema.org/",
    "source": "cr:source",
}


def _json(document: object) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
