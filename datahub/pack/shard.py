"""Packing one shard: the unit of work, of parallelism and of resumption.

A task leaves ``<shard>.tar`` and ``<shard>.tar.idx`` in ``out/`` and, last, ``<shard>.rows`` and ``<shard>.done`` in
``work/``. A valid ``.done`` means the shard is finished and durable.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import LayoutError
from datahub.core.learning import learn
from datahub.order.permutation import Permutation
from datahub.pack import images, tar
from datahub.pack.beside import Beside
from datahub.pack.ground import Ground, put
from datahub.pack.recipes import Made, Recipe
from datahub.pack.source import Chunk, Source
from datahub.pack.stats import Sums, chosen
from datahub.pack.writer import HashedWriter
from datahub.store import blocks, index
from datahub.store.paths import key_of, offsets_name, shard_name
from datahub.store.record import FieldSpec

CHUNK_SAMPLES = 512
CHUNK_BYTES = 8 << 20
UNREADABLE = images.Looks("", 0, 0)
"""What the index says of an image whose header cannot be read."""


@dataclass(frozen=True, slots=True)
class Task:
    """Samples ``first .. last`` of a split, in packed order, into shard ``number``."""

    plan: str
    ground: Ground
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
    scalars: dict[str, str]
    """Further fields of the ``.json``, each with its type as the record calls it."""
    members: dict[str, FieldSpec]
    """Fields with a member of their own."""
    classes: int
    stats: str
    """``sample``, ``full`` or ``none``."""
    recipe: Recipe
    damaged: str
    """``keep``, ``quarantine`` or ``refuse``."""

    @property
    def name(self) -> str:
        return shard_name(self.dataset, self.split, self.number)


class Damaged(msgspec.Struct, frozen=True):
    """``number`` is that of the key the sample has, or would have."""

    number: int
    source: str
    reason: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished shard leaves: everything the commit needs, so that its bytes are never read again."""

    plan: str
    name: str
    first: int
    last: int
    samples: int
    """Fewer than ``last - first`` where samples were left out; 0: the shard is not part of the variant."""
    bytes: int
    sha256: str
    blocks: str
    """Hex of the raw block digests."""
    offsets: tuple[int, str, str]
    """(bytes, SHA-256, hex of raw block digests) of the ``.tar.idx``."""
    histogram: list[int]
    stats: dict[str, Any]
    shape: list[int] | None
    """(H, W, C) where every image of the shard has it."""
    kept: dict[str, int]
    damaged: list[Damaged]
    gaps: list[int]


def finished(task: Task) -> Done | None:
    """The `Done` of a task that needs no more work, else None."""
    data = task.ground.get(f"work/{task.name}.done")
    try:
        done = msgspec.json.decode(data or b"", type=Done)
    except msgspec.DecodeError:
        return None
    if (done.plan, done.first, done.last) != (task.plan, task.first, task.last):
        return None
    sizes = task.ground.size(f"out/{done.name}"), task.ground.size(f"out/{offsets_name(done.name)}")
    rows = task.ground.size(f"work/{task.name}.rows") is not None
    return done if rows and sizes == (done.bytes, done.offsets[0]) else None


def pack(task: Task, source: Source) -> Done:
    """Write the shard, unless it is finished. Equal tasks give equal bytes."""
    return finished(task) or begin(task, source)()


def begin(task: Task, source: Source) -> Callable[[], Done]:
    """Write the shard's samples. What it returns makes them durable and says so; it may run on another thread while
    the next shard is begun.
    """
    packing = _Packing(task, source)
    packing.write()
    return packing.finish


class _Further(NamedTuple):
    """What stands beside a sample's image: the fields of the ``.json``, and the members."""

    values: dict[str, Any]
    files: dict[str, bytes]


class _Image(NamedTuple):
    """One sample on its way into the shard."""

    row: int
    """Its place in packed order, which numbers its key."""
    at: int
    """Its place in the chunk."""
    data: bytes
    look: images.Looks
    beside: _Further


class _Packing:
    def __init__(self, task: Task, source: Source) -> None:
        self.task, self.source = task, source
        self.beside = Beside(task.scalars, task.members)
        self.columns: dict[str, list[Any]] = {
            name: [] for name in index.columns(list(task.scalars), "label" in source.fields(), self.beside.stems)
        }
        self.heads: list[int] = []
        self.sums = Sums()
        self.shapes: set[tuple[int, ...]] = set()
        self.labelled = "label" in source.fields()
        self.kept: Counter[str] = Counter()
        self.damaged: list[Damaged] = []
        self.gaps: list[int] = []
        within = chosen(task.samples, task.split, task.stats)
        self.sampled = within[np.searchsorted(within, task.first) : np.searchsorted(within, task.last)]
        self.writer = HashedWriter(task.ground.sink(f"out/{task.name}"))

    def write(self) -> None:
        try:
            for rows, chunk in self._chunks():
                self._add(self.writer, rows, chunk)
        except BaseException:
            self.writer.abandon()
            raise

    def finish(self) -> Done:
        task = self.task
        end = self.writer.bytes
        self.writer.put(tar.END)
        digests = self.writer.finish()
        offsets = np.array([*self.heads, end], "<u8").tobytes()
        put(task.ground, f"out/{offsets_name(task.name)}", offsets)
        of_offsets = blocks.of_bytes(offsets)
        put(task.ground, f"work/{task.name}.rows", index.encode(self.columns, task.scalars))
        labels = np.asarray(self.columns["label"], np.int64) if self.labelled else np.zeros(0, np.int64)
        done = Done(
            plan=task.plan,
            name=task.name,
            first=task.first,
            last=task.last,
            samples=len(self.heads),
            bytes=digests.bytes,
            sha256=digests.sha256,
            blocks=digests.raw.hex(),
            offsets=(of_offsets.bytes, of_offsets.sha256, of_offsets.raw.hex()),
            histogram=np.bincount(labels, minlength=task.classes).tolist() if self.labelled else [],
            stats=self.sums.to_dict(),
            shape=list(next(iter(self.shapes))) if len(self.shapes) == 1 else None,
            kept=dict(sorted(self.kept.items())),
            damaged=self.damaged,
            gaps=self.gaps,
        )
        put(task.ground, f"work/{task.name}.done", msgspec.json.encode(done))
        return done

    def _chunks(self) -> Iterator[tuple[NDArray[np.int64], Chunk]]:
        """(packed rows, their samples), in packed order, a few megabytes at a time, the next one read meanwhile."""
        task = self.task
        mean = max(1, int(np.mean(self.source.estimate(task.split))))
        step = max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // mean))
        order = Permutation(task.samples, "pack", task.split) if task.permuted else None

        def read(first: int) -> tuple[NDArray[np.int64], Chunk]:
            rows = np.arange(first, min(first + step, task.last), dtype=np.int64)
            return rows, self.source.read(task.split, order(rows) if order else rows)

        firsts = range(task.first, task.last, step)
        with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
            coming = reader.submit(read, firsts[0])
            for after in [*firsts[1:], None]:
                found = coming.result()
                if after is not None:
                    coming = reader.submit(read, after)
                yield found

    def _add(self, writer: HashedWriter, rows: NDArray[np.int64], chunk: Chunk) -> None:
        at = np.searchsorted(self.sampled, rows)
        sampled = np.zeros(len(rows), bool)
        if len(self.sampled):
            sampled = self.sampled[np.minimum(at, len(self.sampled) - 1)] == rows
        chunk = replace(chunk, scalars={name: _list(chunk.scalars[name]) for name in self.task.scalars})
        if isinstance(chunk.images, np.ndarray):
            found = self._pixels(rows, chunk, chunk.images, sampled)
        else:
            found = self._files(rows, chunk, chunk.images, sampled)
        labels = chunk.labels.tolist() if chunk.labels is not None else None
        columns = self.columns
        for each in found:
            self._member(writer, each, None if labels is None else labels[each.at])
            self._further(writer, each.row, *each.beside)
            columns["source"].append(chunk.sources[each.at])
            for name, value in each.beside.values.items():
                columns[name].append(value)

    def _pixels(
        self, rows: NDArray[np.int64], chunk: Chunk, pixels: NDArray[np.uint8], sampled: NDArray[np.bool_]
    ) -> Iterator[_Image]:
        """Images of a source that holds pixels."""
        height, width = pixels.shape[1:3]
        self.shapes.add((height, width, pixels.shape[3] if pixels.ndim == 4 else 1))
        if sampled.any():
            self.sums.add(pixels[sampled])
        files = self.task.recipe.encode(pixels)
        before, look = images.Looks("", width, height), images.look(files[0])
        for at, (row, data) in enumerate(zip(rows.tolist(), files, strict=True)):
            yield _Image(row, at, data, look, self._beside(chunk, at, before, look)[0])

    def _files(
        self, rows: NDArray[np.int64], chunk: Chunk, files: Sequence[bytes], sampled: NDArray[np.bool_]
    ) -> Iterator[_Image]:
        """Images of a source that holds encoded files."""
        for at, (row, made) in enumerate(zip(rows.tolist(), self.task.recipe.transform(files), strict=True)):
            look, damage = self._checked(made, bool(sampled[at]))
            same = made.data is files[at] or not self.beside.placed
            beside, unfit = self._beside(chunk, at, look if same else images.look(files[at]), look)
            damage = damage or unfit
            if damage and not self._admits(row, chunk.sources[at], damage):
                continue
            if made.kept:
                self.kept[made.kept] += 1
            if look.height:
                self.shapes.add((look.height, look.width, 3))  # decoded as RGB
            yield _Image(row, at, made.data, look, beside)

    def _checked(self, made: Made, sampled: bool) -> tuple[images.Looks, str]:
        """What the image looks like, and why it is damaged ("" where nothing says so); adds it to the statistics."""
        damage = made.damage
        try:
            look = images.look(made.data)
        except ValueError as error:
            return UNREADABLE, damage or str(error)
        # Images that a recipe keeps as they are it has not decoded.
        whole = self.task.damaged != "keep" and (self.task.recipe.name == "published" or bool(made.kept))
        if not damage and (sampled or whole):
            try:
                pixels = images.pixels(made.data)
            except ValueError as error:
                return look, str(error)
            if sampled:
                self.sums.add(pixels[None])
        return look, damage

    def _beside(self, chunk: Chunk, at: int, before: images.Looks, look: images.Looks) -> tuple[_Further, str]:
        """What stands beside an image, scaled if it was, and why that is not of this image ("" where it is).

        ``before``: what the published image looks like. Raises `LayoutError` where damaged images are kept: that one is
        kept as it was published, this was made.
        """
        found = _Further(*({name: each[at] for name, each in of.items()} for of in (chunk.scalars, chunk.members)))
        if look is UNREADABLE:
            return found, ""
        reason = self.beside.damage(found.files, before)
        if not reason and (before.width, before.height) != (look.width, look.height):
            try:
                found = _Further(*self.beside.scaled(*found, before, look))
            except ValueError as error:
                reason = str(error)
        if reason and self.task.damaged == "keep":
            raise LayoutError(chunk.sources[at], "", reason, "mend or remove it, or say --damaged quarantine")
        return found, reason

    def _admits(self, row: int, source: str, damage: str) -> bool:
        """Whether a damaged sample goes into the shard; raises `LayoutError` where the policy is to refuse it."""
        if self.task.damaged == "refuse":
            raise LayoutError(source, "", damage, "mend or remove it, or say --damaged keep or quarantine")
        self.damaged.append(Damaged(row, source, damage))
        if self.task.damaged == "quarantine":
            self.gaps.append(row)
            return False
        return True

    def _further(self, writer: HashedWriter, row: int, values: dict[str, Any], files: dict[str, bytes]) -> None:
        """The members behind image and label."""
        for stem, extension, data in self.beside.files(values, files):
            if f"{stem}_offset" in self.columns:
                self.columns[f"{stem}_offset"].append(writer.bytes + tar.BLOCK)
                self.columns[f"{stem}_size"].append(len(data))
            self._put(writer, f"{key_of(self.task.split, row)}.{extension}", data)

    def _member(self, writer: HashedWriter, image: _Image, label: int | None) -> None:
        key, data = key_of(self.task.split, image.row), image.data
        columns = self.columns
        self.heads.append(writer.bytes)
        columns["key"].append(key)
        columns["shard"].append(self.task.number)
        columns["image_offset"].append(writer.bytes + tar.BLOCK)
        columns["image_size"].append(len(data))
        columns["sha256"].append(hashlib.sha256(data).hexdigest())
        columns["format"].append(image.look.format)
        columns["width"].append(image.look.width)
        columns["height"].append(image.look.height)
        self._put(writer, f"{key}.{self.task.extension}", data)
        if label is not None:
            text = b"%d" % label
            columns["label"].append(label)
            columns["label_offset"].append(writer.bytes + tar.BLOCK)
            columns["label_size"].append(len(text))
            self._put(writer, f"{key}.cls", text)

    @staticmethod
    def _put(writer: HashedWriter, name: str, data: bytes) -> None:
        head, tail = tar.header(name.encode("ascii"), len(data)), tar.padding(len(data))
        if len(data) < 4096:
            writer.put(b"".join((head, data, tail)))
            return
        writer.put(head)
        writer.put(data)
        writer.put(tail)


def _list(values: Any) -> list[Any]:
    """Python values of an array or list."""
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


learn(Done)
