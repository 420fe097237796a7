"""Packing one shard: the unit of work, of parallelism and of resumption.

A task leaves ``<shard>.tar`` and ``<shard>.tar.idx`` in ``out/`` and, last, ``<shard>.rows`` and ``<shard>.done`` in
``work/``. A valid ``.done`` means the shard is finished and on the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from datahub.core import atomic
from datahub.core.errors import LayoutError
from datahub.order.permutation import Permutation
from datahub.pack import images, png, tar
from datahub.pack.source import Chunk, Source
from datahub.pack.stats import Sums, chosen
from datahub.pack.writer import HashedWriter
from datahub.store import blocks, index
from datahub.store.paths import key_of, offsets_name, shard_name

CHUNK_SAMPLES = 512
CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """Samples ``first .. last`` of a split, in packed order, into shard ``number``."""

    plan: str
    folder: Path
    dataset: str
    split: str
    number: int
    first: int
    last: int
    samples: int
    """Samples of the whole split."""
    permuted: bool
    extension: str
    """Of the image members."""
    scalars: tuple[str, ...]
    classes: int
    stats: str
    """``sample``, ``full`` or ``none``."""

    @property
    def name(self) -> str:
        return shard_name(self.dataset, self.split, self.number)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def work(self) -> Path:
        return self.folder / "work"


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished shard leaves: everything the commit needs, so that its bytes are never read again."""

    plan: str
    name: str
    samples: int
    bytes: int
    sha256: str
    md5: str
    blocks: str
    """Hex of the raw block digests."""
    offsets: tuple[int, str, str]
    """(bytes, SHA-256, hex of raw block digests) of the ``.tar.idx``."""
    histogram: list[int]
    stats: dict[str, Any]
    shape: list[int] | None
    """(H, W, C) where every image of the shard has it."""


def finished(task: Task) -> Done | None:
    """The `Done` of a task that needs no more work, else None."""
    try:
        done = msgspec.json.decode((task.work / f"{task.name}.done").read_bytes(), type=Done)
        if done.plan != task.plan or done.samples != task.last - task.first:
            return None
        tar_bytes = (task.out / done.name).stat().st_size
        idx_bytes = (task.out / offsets_name(done.name)).stat().st_size
    except (OSError, msgspec.DecodeError):
        return None
    rows = (task.work / f"{task.name}.rows").is_file()
    return done if rows and (tar_bytes, idx_bytes) == (done.bytes, done.offsets[0]) else None


def pack(task: Task, source: Source) -> Done:
    """Write the shard, unless it is finished. Equal tasks give equal bytes."""
    return finished(task) or _Packing(task, source).run()


class _Packing:
    def __init__(self, task: Task, source: Source) -> None:
        self.task, self.source = task, source
        self.columns: dict[str, list[Any]] = {
            name: [] for name in index.columns(task.scalars, "label" in source.fields())
        }
        self.heads: list[int] = []
        self.sums = Sums()
        self.shapes: set[tuple[int, ...]] = set()
        self.labelled = "label" in source.fields()
        within = chosen(task.samples, task.split, task.stats)
        self.sampled = within[np.searchsorted(within, task.first) : np.searchsorted(within, task.last)]

    def run(self) -> Done:
        task = self.task
        writer = HashedWriter(task.out / task.name)
        try:
            for rows, chunk in self._chunks():
                self._add(writer, rows, chunk)
            end = writer.bytes
            writer.put(tar.END)
        except BaseException:
            writer.abandon()
            raise
        digests, md5 = writer.finish()
        offsets = np.array([*self.heads, end], "<u8").tobytes()
        atomic.write_bytes(task.out / offsets_name(task.name), offsets)
        of_offsets = blocks.of_bytes(offsets)
        index.write(task.work / f"{task.name}.rows", self.columns)
        labels = np.asarray(self.columns["label"], np.int64) if self.labelled else np.zeros(0, np.int64)
        done = Done(
            plan=task.plan,
            name=task.name,
            samples=task.last - task.first,
            bytes=digests.bytes,
            sha256=digests.sha256,
            md5=md5,
            blocks=digests.raw.hex(),
            offsets=(of_offsets.bytes, of_offsets.sha256, of_offsets.raw.hex()),
            histogram=np.bincount(labels, minlength=task.classes).tolist() if self.labelled else [],
            stats=self.sums.to_dict(),
            shape=list(next(iter(self.shapes))) if len(self.shapes) == 1 else None,
        )
        atomic.write_bytes(task.work / f"{task.name}.done", msgspec.json.encode(done))
        return done

    def _chunks(self) -> Iterator[tuple[NDArray[np.int64], Chunk]]:
        """(packed rows, their samples), in packed order, a few megabytes at a time."""
        task = self.task
        estimate = self.source.estimate(task.split)
        mean = max(1, int(np.mean(estimate)))
        step = max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // mean))
        order = Permutation(task.samples, "pack", task.split) if task.permuted else None
        for first in range(task.first, task.last, step):
            rows = np.arange(first, min(first + step, task.last), dtype=np.int64)
            yield rows, self.source.read(task.split, order(rows) if order else rows)

    def _add(self, writer: HashedWriter, rows: NDArray[np.int64], chunk: Chunk) -> None:
        at = np.searchsorted(self.sampled, rows)
        picked = (
            np.flatnonzero((at < len(self.sampled)) & (self.sampled[np.minimum(at, len(self.sampled) - 1)] == rows))
            if len(self.sampled)
            else at[:0]
        )
        if isinstance(chunk.images, np.ndarray):
            pixels = chunk.images
            files = png.encode(pixels)
            height, width = pixels.shape[1:3]
            channels = pixels.shape[3] if pixels.ndim == 4 else 1
            self.shapes.add((height, width, channels))
            looks = [images.Looks("png", width, height)] * len(files)
            if len(picked):
                self.sums.add(pixels[picked])
        else:
            files = chunk.images
            looks = [self._look(data, name) for data, name in zip(files, chunk.sources, strict=True)]
            self.shapes.update((each.height, each.width, 3) for each in looks)  # decoded as RGB
            self._sum_encoded(picked, chunk)
        labels = chunk.labels.tolist() if chunk.labels is not None else None
        scalars = {name: chunk.scalars[name].tolist() for name in self.task.scalars}
        for i, (row, data) in enumerate(zip(rows.tolist(), files, strict=True)):
            self._member(
                writer, row, data, None if labels is None else labels[i], {k: v[i] for k, v in scalars.items()}
            )
        columns = self.columns
        columns["source"] += chunk.sources
        columns["shard"] += [self.task.number] * len(rows)
        columns["width"] += [each.width for each in looks]
        columns["height"] += [each.height for each in looks]
        columns["format"] += [each.format for each in looks]
        if labels is not None:
            columns["label"] += labels
        for name, values in scalars.items():
            columns[name] += values

    def _member(self, writer: HashedWriter, row: int, data: bytes, label: int | None, scalars: dict[str, int]) -> None:
        key = key_of(self.task.split, row)
        columns = self.columns
        self.heads.append(writer.bytes)
        columns["key"].append(key)
        columns["image_offset"].append(writer.bytes + tar.BLOCK)
        columns["image_size"].append(len(data))
        columns["sha256"].append(hashlib.sha256(data).hexdigest())
        self._put(writer, f"{key}.{self.task.extension}", data)
        if label is not None:
            text = b"%d" % label
            columns["label_offset"].append(writer.bytes + tar.BLOCK)
            columns["label_size"].append(len(text))
            self._put(writer, f"{key}.cls", text)
        if scalars:
            self._put(writer, f"{key}.json", json.dumps(scalars, sort_keys=True).encode())

    @staticmethod
    def _put(writer: HashedWriter, name: str, data: bytes) -> None:
        head, tail = tar.header(name.encode("ascii"), len(data)), tar.padding(len(data))
        if len(data) < 4096:
            writer.put(b"".join((head, data, tail)))
            return
        writer.put(head)
        writer.put(data)
        writer.put(tail)

    @staticmethod
    def _look(data: bytes, name: str) -> images.Looks:
        try:
            return images.look(data)
        except ValueError as error:
            raise LayoutError(name, "", str(error)) from error

    def _sum_encoded(self, picked: NDArray[np.int64], chunk: Chunk) -> None:
        for i in picked.tolist():
            try:
                self.sums.add_encoded([chunk.images[i]])
            except ValueError as error:
                raise LayoutError(chunk.sources[i], "", str(error)) from error
