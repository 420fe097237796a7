"""`tiny_variant`: a small, real, complete variant folder, made without the pack room.

For tests of whatever reads a store: `from tests.store.builder import tiny_variant`. The image and label of a row are
what `pixels` and `label` say, so a reader's answers can be checked without reading the shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datahub.store import blocks, index, locate, record
from datahub.store.locate import LOCATE
from datahub.store.paths import index_name, key_of, locate_name, offsets_name, shard_name, variant_dir, wids_name
from datahub.store.record import FieldSpec, FileEntry, ManifestEntry, PackerEntry, Record, ShardEntry, SplitEntry, Stats

CLASSES = ("circle", "square", "star")
SIZE = (12, 10)
"""(width, height) of every image."""
EXTENSIONS = {"png": "png", "jpeg": "jpg"}
SPLITS = {"train": 20, "test": 6}


def label(split: str, row: int) -> int:
    return (row * 7 + len(split)) % len(CLASSES)


def pixels(split: str, row: int, *, channels: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 (H, W, 3) or (H, W): noise that `split` and `row` decide."""
    width, height = size
    noise = np.random.default_rng([row, *split.encode()]).integers(0, 256, (height, width, channels), np.uint8)
    return noise if channels == 3 else noise[:, :, 0]


def encoded(image: np.ndarray, format: str = "png") -> bytes:
    buffer = io.BytesIO()
    if format == "png":
        Image.fromarray(image).save(buffer, "PNG")
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Tiny:
    folder: Path
    name: str
    format: str
    channels: int
    labelled: bool
    scalars: Mapping[str, Any]
    size: tuple[int, int]

    @property
    def extensions(self) -> dict[str, str]:
        label = {"label": "cls"} if self.labelled else {}
        return {"image": EXTENSIONS[self.format], **label, **dict.fromkeys(self.scalars, "json")}

    def members(self, split: str, row: int) -> dict[str, bytes]:
        """Extension -> content, in the order they stand in the shard."""
        found = {EXTENSIONS[self.format]: encoded(self.image(split, row), self.format)}
        if self.labelled:
            found["cls"] = b"%d" % label(split, row)
        if self.scalars:
            found["json"] = json.dumps(
                {name: int(of(row)) for name, of in self.scalars.items()}, sort_keys=True
            ).encode()
        return found

    def image(self, split: str, row: int) -> np.ndarray:
        return pixels(split, row, channels=self.channels, size=self.size)

    def columns(self) -> dict[str, list[Any]]:
        return {name: [] for name in index.columns(tuple(self.scalars), self.labelled)}

    def shard(self, split: str, number: int, rows: range, columns: dict[str, list[Any]]) -> None:
        """Write one shard and its offsets; append its rows to ``columns``."""
        path = self.folder / shard_name(self.name, split, number)
        heads = []
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows:
                heads.append(tar.offset)
                for extension, content in self.members(split, row).items():
                    info = tarfile.TarInfo(f"{key_of(split, row)}.{extension}")
                    info.size, info.mode, info.mtime = len(content), 0o644, 0
                    at = tar.offset + tarfile.BLOCKSIZE
                    tar.addfile(info, io.BytesIO(content))
                    if extension in ("cls", "json"):
                        if extension == "cls":
                            columns["label_offset"].append(at)
                            columns["label_size"].append(len(content))
                            columns["label"].append(label(split, row))
                        continue
                    columns["image_offset"].append(at)
                    columns["image_size"].append(len(content))
                    columns["sha256"].append(hashlib.sha256(content).hexdigest())
                columns["key"].append(key_of(split, row))
                columns["source"].append(f"{split}/{CLASSES[label(split, row)]}/{row}.{self.format}")
                columns["shard"].append(number)
                columns["width"].append(self.size[0])
                columns["height"].append(self.size[1])
                columns["format"].append(self.format)
                for name, of in self.scalars.items():
                    columns[name].append(int(of(row)))
            heads.append(tar.offset)
        (self.folder / offsets_name(path.name)).write_bytes(np.array(heads, "<u8").tobytes())

    def split(self, split: str, samples: int, shards: int) -> None:
        """Write a split's shards, locate rows, index and wids JSON."""
        columns = self.columns()
        sizes = _sizes(samples, shards)
        first = 0
        for number, count in enumerate(sizes):
            self.shard(split, number, range(first, first + count), columns)
            first += count
        rows = np.zeros(samples, LOCATE)
        rows["offset"], rows["size"] = columns["image_offset"], columns["image_size"]
        rows["label"] = columns.get("label", -1)
        for name in ("shard", "width", "height"):
            rows[name] = columns[name]
        locate.write(self.folder / locate_name(split), rows)
        index.write(self.folder / index_name(split), columns)
        listed = [
            {"url": path.name, "md5sum": hashlib.md5(path.read_bytes()).hexdigest(), "nsamples": count}
            | {"filesize": path.stat().st_size}
            for number, count in enumerate(sizes)
            for path in [self.folder / shard_name(self.name, split, number)]
        ]
        document = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": self.name, "shardlist": listed}
        (self.folder / wids_name(split)).write_text(json.dumps(document))


def tiny_variant(
    root: Path,
    name: str = "tiny",
    splits: Mapping[str, int] | None = None,
    *,
    version: str = "1.0",
    variant: str = "published",
    shards: int = 2,
    format: str = "png",
    channels: int = 3,
    labelled: bool = True,
    scalars: Mapping[str, Any] | None = None,
    size: tuple[int, int] = SIZE,
    block: int = 8,
) -> Path:
    """A variant in the store ``root`` (``Settings(home=root)`` finds it); returns its folder.

    ``scalars`` maps the names of further int fields to a function of the row. ``block`` is B of the order formula.
    """
    splits = dict(SPLITS if splits is None else splits)
    folder = variant_dir(root / "datasets", name, version, variant)
    folder.mkdir(parents=True)
    tiny = _Tiny(folder, name, format, channels, labelled, dict(scalars or {}), size)
    for split, samples in splits.items():
        tiny.split(split, samples, shards)
    (folder / "README.md").write_text(_card(name, splits))
    (folder / ".nv-meta").mkdir()
    counts = {
        shard_name(name, split, number): count
        for split, samples in splits.items()
        for number, count in enumerate(_sizes(samples, shards))
    }
    (folder / ".nv-meta" / ".info.json").write_text(json.dumps({"energon_version": "7.0.0", "shard_counts": counts}))
    commit(folder, tiny_record(tiny, splits, shards, version, variant, block))
    return folder


def tiny_record(tiny: _Tiny, splits: Mapping[str, int], shards: int, version: str, variant: str, block: int) -> Record:
    types = {"image": "image", "label": "label"}
    shape = [tiny.size[1], tiny.size[0], tiny.channels]
    fields = {
        each: FieldSpec(type=types.get(each, "int"), extension=extension, shape=shape if each == "image" else None)
        for each, extension in tiny.extensions.items()
    }
    files = [_entry(tiny.folder, path) for path in sorted(tiny.folder.rglob("*")) if path.is_file()]
    return Record(
        manifest=ManifestEntry(name=tiny.name, version=version, digest="sha256:" + "0" * 64),
        variant=variant,
        plan="sha256:" + "1" * 64,
        packer=PackerEntry(),
        files=files,
        fields=fields,
        splits={name: _split_entry(tiny, name, count, shards, fields, block) for name, count in splits.items()},
        classes=list(CLASSES) if tiny.labelled else [],
        title=f"{tiny.name}, made by a test",
        task="image-classification",
    )


def _split_entry(
    tiny: _Tiny, split: str, samples: int, shards: int, fields: dict[str, FieldSpec], block: int
) -> SplitEntry:
    sizes = _sizes(samples, shards)
    names = [shard_name(tiny.name, split, number) for number in range(len(sizes))]
    digests = [blocks.of_file(tiny.folder / name).sha256 for name in names]
    labels = [label(split, row) for row in range(samples)]
    images = np.stack([tiny.image(split, row) for row in range(samples)]) / 255.0
    flat = images.reshape(-1, tiny.channels)
    return SplitEntry(
        samples=samples,
        shards=[ShardEntry(path=name, samples=count) for name, count in zip(names, sizes, strict=True)],
        block=block,
        locate=locate_name(split),
        index=index_name(split),
        fingerprint=record.fingerprint(split, fields, block, list(zip(sizes, digests, strict=True))),
        histogram=np.bincount(labels, minlength=len(CLASSES)).tolist() if tiny.labelled else [],
        stats=Stats(mean=flat.mean(0).tolist(), std=flat.std(0).tolist(), images=samples, full=False),
    )


def commit(folder: Path, made: Record) -> None:
    """Write ``blocks.bin`` and the record over the files as they are now (tests re-commit what they changed)."""
    digests = {each.path: blocks.of_file(folder / each.path) for each in made.files}
    (folder / record.BLOCKS).write_bytes(b"".join(digests[each.path].raw for each in made.files))
    record.write(folder, made)


def _entry(folder: Path, path: Path) -> FileEntry:
    digests = blocks.of_file(path)
    return FileEntry(
        path=path.relative_to(folder).as_posix(),
        role=_role(path.name),
        bytes=digests.bytes,
        sha256=digests.sha256,
        blocks=digests.blocks,
    )


def _role(name: str) -> str:
    roles = {".tar": "shard", ".idx": "offsets", ".npy": "locate", ".parquet": "index", ".md": "card"}
    return roles.get(Path(name).suffix, "metadata")


def _sizes(samples: int, shards: int) -> list[int]:
    """Samples of each shard, differing by at most one; no shard is empty."""
    count = min(samples, shards)
    return [samples * (n + 1) // count - samples * n // count for n in range(count)]


def _card(name: str, splits: Mapping[str, int]) -> str:
    lines = [f"  - split: {split}\n    path: {name}-{split}-*.tar" for split in splits]
    return "---\nconfigs:\n- config_name: default\n  data_files:\n" + "\n".join(lines) + f"\n---\n# {name}\n"


def damaged(path: Path, at: int, mask: int = 1) -> None:
    """Flip bits of one byte of a file, whose size stays."""
    with path.open("r+b") as handle:
        handle.seek(at)
        byte = handle.read(1)[0]
        handle.seek(at)
        handle.write(bytes([byte ^ mask]))


def names(folder: Path) -> Sequence[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
