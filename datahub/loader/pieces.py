"""The pieces of a batch: some of its rows read and decoded, by any thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.core.errors import BadArgument, DamagedImage, DamagedSample, ShardCut
from datahub.loader.annotations import Annotations, Values
from datahub.loader.clips import decode_clips
from datahub.loader.columns import Columns
from datahub.loader.fillers import Fillers
from datahub.loader.recipe import Supplies
from datahub.loader.residency_files import Resident
from datahub.loader.schedule import Step
from datahub.loader.work import Work
from datahub.stream.heap import keep_freed_memory
from datahub.stream.source import ShardSource
from datahub.stream.spans import Spans
from datahub.tensor.decode import Encoded, decode_each, decode_rows, header
from datahub.tensor.draws import Draws
from datahub.tensor.folding import Folded, fold
from datahub.tensor.framed import decode_framed, outputs, sizes_of
from datahub.tensor.transforms import BatchTransform
from datahub.tensor.windows import take_rows

Empty = Callable[[tuple[int, ...], torch.memory_format], torch.Tensor]


class Pieces:
    """Safe to use from many threads at once; what it holds is read-only."""

    def __init__(self, supplies: Supplies) -> None:
        split, recipe = supplies.split, supplies.recipe
        self._split, self._source, self._recipe = split, supplies.source, recipe
        self._counters, self._seed = supplies.counters, supplies.seed
        self._columns = Columns(split, recipe.fields, clip=None if recipe.clip is None else recipe.clip.field)
        self._annotations = Annotations.of(split, self._columns.names, recipe.transform)
        self._locate: Any = split.locate
        self._shape = split.dataset.record.fields["image"].shape
        self._channels = self._shape[2] if self._shape else 3
        self._images = recipe.fields is None or "image" in recipe.fields
        self._encoded = recipe.fields is not None and "encoded" in recipe.fields
        self._turns = recipe.orient and self._annotations is not None and self._annotations.placed
        self._reads = self._images or self._encoded or self._turns
        self._batched = isinstance(recipe.transform, BatchTransform)
        self._fold = fold(recipe.transform) if isinstance(recipe.transform, BatchTransform) else None
        self._fillers = Fillers(split, supplies.quarantine, self._channels, self._fold)
        if self._encoded or self._fold:
            keep_freed_memory()
        self._resident: Resident | None = None
        self._empty: Empty = _empty

    def reside(self, resident: Resident | None) -> None:
        """Take pixels from ``resident`` from now on; batches that it does not hold whole are streamed all the same."""
        self._resident = resident
        if resident is not None:
            keep_freed_memory()

    @property
    def source(self) -> ShardSource:
        """What the bytes of batches to come are read from."""
        return self._source

    def read_from(self, source: ShardSource) -> None:
        self._source = source

    def spans(self, index: NDArray[np.int64]) -> Spans:
        """All that is read of the shards for some rows."""
        rows = self._rows_of(index)
        images = [Spans(rows["shard"], rows["offset"], rows["size"])] if self._reads else []
        beside = [] if self._annotations is None else self._annotations.spans(index, rows)
        return Spans.joined([*images, *beside])

    def into(self, empty: Empty | None) -> None:
        """Have the pixels of batches to come written into what ``empty`` gives; None: memory of their own."""
        self._empty = empty or _empty

    def begin(self, step: Step) -> Work:
        """A batch of which nothing is made yet."""
        rows = self._rows_of(step.index)
        resident = self._resident if self._resident is not None and self._resident.holds(step.index) else None
        slab, size = None, self._size()
        if self._images and size is not None and (resident is None or not self._batched):
            form = torch.channels_last if self._fold and self._recipe.channels_last else torch.contiguous_format
            slab = self._empty((len(rows), self._channels, *size), form)
        encoded = [b""] * len(rows) if self._encoded else []
        each = [None] * len(rows)
        beside: list[Values] = [{} for _ in rows] if self._annotations is not None else []
        return Work(
            step,
            rows,
            Draws(self._seed, step.epoch, step.places),
            slab,
            each,
            encoded=encoded,
            beside=beside,
            turns=[1] * len(rows) if self._turns else [],
            decoded=self._images,
            clips=self._recipe.clip is not None,
            resident=resident,
        )

    def announce(self, step: Step | None) -> bool:
        """Tell the source what a batch to come will read (`ShardSource.ahead`); None: nothing of that holds."""
        if not self._reads:
            return False
        rows = None if step is None else self._locate[step.index]
        return self._source.ahead(None if rows is None else Spans(rows["shard"], rows["offset"], rows["size"]))

    def piece(self, work: Work, rows: slice) -> None:
        """Read, decode and (a callable) transform some rows. Raises `DamagedSample` or `StoreDamaged`."""
        if self._annotations is not None:
            self._annotate(self._annotations, work, rows)
        if not self._reads:
            return
        if work.resident is not None:
            self._take(work, rows, work.resident)
            return
        where = work.rows[rows]
        with self._counters.timing("read"):
            encoded = self._read(work, rows, Spans(where["shard"], where["offset"], where["size"]))
        self._counters.add("bytes", int(where["size"].sum()))
        if self._turns:
            self._look_how_turned(work, rows, encoded)
        if self._encoded:
            work.encoded[rows] = [data if isinstance(data, bytes) else bytes(data) for data in encoded]
        if self._images:
            self._made(work, rows, encoded)

    def _annotate(self, annotations: Annotations, work: Work, rows: slice) -> None:
        """Read what stands beside the images of some rows."""

        def damage(row: int, member: str, cause: str) -> None:
            index = int(work.step.index[rows.start + row])
            found = self._fillers.damage(work, rows.start + row, cause, annotations.offset(index, member))
            self._fillers.set_aside(work, rows.start + row, found)

        with self._counters.timing("read"):
            read = partial(self._read, work, rows)
            work.beside[rows] = annotations.read(work.step.index[rows], work.rows[rows], read, damage)
        if self._recipe.clip is not None:
            with self._counters.timing("decode"):
                decode_clips(self._recipe.clip, work.beside[rows], work.draws.take(rows), damage)

    def _look_how_turned(self, work: Work, rows: slice, encoded: Sequence[Encoded]) -> None:
        for row, data in enumerate(encoded, rows.start):
            try:
                work.turns[row] = header(data, upright=True).turn
            except DamagedImage as damage:
                self._fillers.set_aside(work, row, self._fillers.damage(work, row, damage.cause))

    def _take(self, work: Work, rows: slice, resident: Resident) -> None:
        """Pixels that were decoded before, and what a callable makes of them."""
        if work.slab is None:
            return  # a batched transform takes them itself
        with self._counters.timing("assemble"):
            take_rows(resident.pixels, work.step.index[rows], work.slab[rows].numpy())
            self._fillers.blank(work, rows)
        if self._recipe.transform is not None:
            with self._counters.timing("transform"):
                self._call_each(work, rows)

    def _made(self, work: Work, rows: slice, encoded: Sequence[Encoded]) -> None:
        """The images of some rows: decoded, and what a callable makes of them."""
        with self._counters.timing("decode"):
            self._decode_or_set_aside(work, rows, encoded)
            self._fillers.blank(work, rows)
        if self._recipe.transform is not None and not self._batched:
            with self._counters.timing("transform"):
                self._call_each(work, rows)

    def _rows_of(self, index: NDArray[np.int64]) -> NDArray[Any]:
        # Fancy indexing of records costs ten times what `take` does; a mixture's rows are put together by indexing.
        rows: NDArray[Any] = self._locate.take(index) if isinstance(self._locate, np.ndarray) else self._locate[index]
        return rows

    def _size(self) -> tuple[int, int] | None:
        """Height and width that every image of a batch has; None where they differ."""
        if self._fold is not None:
            return self._fold.output
        if self._shape is None or (self._recipe.orient and self._shape[0] != self._shape[1]):
            return None  # sides that differ may be swapped
        return (self._shape[0], self._shape[1])

    def _read(self, work: Work, rows: slice, spans: Spans) -> Sequence[Encoded]:
        """The rows' bytes; those that a shard cut short does not hold are set aside and come empty."""
        source = work.source or self._source
        try:
            return source.read_many(spans)
        except ShardCut:
            if not self._fillers.allowed:
                raise
        found: list[Encoded] = []
        for row, span in enumerate(spans.rows(), rows.start):
            try:
                found.append(source.read(*span))
            except ShardCut as cut:
                self._fillers.set_aside(work, row, self._fillers.damage(work, row, cut.problems[0].message))
                found.append(b"")
        return found

    def _decode_or_set_aside(self, work: Work, rows: slice, encoded: Sequence[Encoded]) -> None:
        """Decode all at once; where damaged ones may be set aside, the rest of such a piece one by one."""
        try:
            return self._decode(work, rows, encoded)
        except DamagedSample:
            if not self._fillers.allowed:
                raise
        for row, data in enumerate(encoded, rows.start):
            try:
                self._decode(work, slice(row, row + 1), [data])
            except DamagedSample as damage:
                self._fillers.set_aside(work, row, damage)
        return None

    def _decode(self, work: Work, rows: slice, encoded: Sequence[Encoded]) -> None:
        orient = self._recipe.orient
        try:
            if self._fold is not None:
                self._decode_frames(self._fold, work, rows, encoded)
            elif work.slab is not None:
                decode_rows(encoded, work.slab[rows].numpy(), orient)
            else:
                work.each[rows] = [torch.from_numpy(image) for image in decode_each(encoded, self._channels, orient)]
        except DamagedImage as damage:
            raise self._fillers.damage(work, rows.start + (damage.position or 0), damage.cause) from damage

    def _sizes(self, work: Work, rows: slice, encoded: Sequence[Encoded]) -> NDArray[np.int64]:
        """Heights and widths of some rows' images, upright where they are shown so: ``(rows, 2)``."""
        where = work.rows[rows]
        known = np.stack([where["height"], where["width"]], axis=1).astype(np.int64)
        if self._recipe.orient or not known.all():  # an index that does not know
            return sizes_of(encoded, self._recipe.orient)
        return known

    def _decode_frames(self, fold: Folded, work: Work, rows: slice, encoded: Sequence[Encoded]) -> None:
        frames = fold.frames(self._sizes(work, rows, encoded), work.draws.take(rows))
        if work.slab is not None:
            decode_framed(encoded, frames, list(work.slab[rows].numpy()), self._recipe.orient)
        else:
            found = outputs(frames, self._channels)
            decode_framed(encoded, frames, found, self._recipe.orient)
            work.each[rows] = [torch.from_numpy(image) for image in found]

    def _call_each(self, work: Work, rows: slice) -> None:
        call = self._recipe.transform
        assert call is not None
        for row in range(rows.start, rows.stop):
            image = work.slab[row] if work.slab is not None else work.each[row]
            try:
                work.each[row] = call(image)
            except Exception as error:
                error.add_note(f"in transform= for sample {self._split.key(int(work.step.index[row]))}")
                raise
            if work.each[row] is None:
                reason = f"returned nothing for sample {self._split.key(int(work.step.index[row]))}"
                raise BadArgument("transform", getattr(call, "__name__", call), reason, "let it return the image")


def _empty(shape: tuple[int, ...], form: torch.memory_format) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.uint8, memory_format=form)
