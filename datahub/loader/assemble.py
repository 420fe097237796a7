"""Making a batch of the samples a `Step` names: read, decode, transform, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.core.errors import DamagedImage, DamagedSample, ShardCut
from datahub.loader.annotations import Annotations, Values
from datahub.loader.clips import clips_together, decode_clips
from datahub.loader.columns import Columns
from datahub.loader.counters import Counters
from datahub.loader.mapping import mapped, stacked, together
from datahub.loader.mixing import MixStage
from datahub.loader.quarantine import filler
from datahub.loader.residency_files import Resident
from datahub.loader.schedule import Step
from datahub.store.dataset import Split
from datahub.stream.heap import keep_freed_memory
from datahub.stream.source import ShardSource
from datahub.stream.spans import Spans
from datahub.tensor.clips import Clip
from datahub.tensor.decode import decode_each, decode_rows
from datahub.tensor.draws import Draws
from datahub.tensor.folding import Folded, fold
from datahub.tensor.framed import decode_framed, outputs, sizes_of
from datahub.tensor.mixing import Mixing
from datahub.tensor.transforms import BatchTransform, Images
from datahub.tensor.windows import take_rows

PIECE_BYTES = 256 << 10
"""Encoded bytes that are worth a thread of their own."""
READ_BYTES = 4 << 20
"""The same where nothing is decoded: with many threads in short reads, the interpreter's lock is the limit."""


@dataclass(frozen=True)
class Recipe:
    """What is done to the samples. ``fields``: names for tuples, None for dicts."""

    fields: tuple[str, ...] | None = None
    transform: BatchTransform | Callable[[torch.Tensor], Any] | None = None
    batch_transform: Callable[[Any], Any] | None = None
    collate: Callable[[list[dict[str, Any]]], Any] | None = None
    map: Callable[[dict[str, Any]], Any] | None = None
    clip: Clip | None = None
    """What is shown of its ``field``, a video; see `clips.bound`."""
    dtype: torch.dtype | None = None
    channels_last: bool = False
    mixing: Mixing | None = None
    """Mixes the batch before ``batch_transform`` sees it."""
    orient: bool = False
    """Images are turned upright by their EXIF orientation."""


@dataclass
class Work:
    """A batch half made. Images of one shape are rows of ``slab``; others, or results of a callable, in ``each``."""

    step: Step
    rows: NDArray[Any]
    slab: torch.Tensor | None
    each: list[Any] = field(default_factory=list)
    aside: set[int] = field(default_factory=set)
    """Rows whose sample is damaged: they come as fillers."""
    encoded: list[bytes] = field(default_factory=list)
    """The images' bytes, where a batch shows them."""
    beside: list[Values] = field(default_factory=list)
    """Boxes, masks and the like, where a batch shows them."""
    decoded: bool = True
    clips: bool = False
    """Whether videos are decoded, each of which is worth a thread."""
    resident: Resident | None = None
    """The pixels of all rows, where they were decoded before."""

    def pieces(self, workers: int) -> list[slice]:
        """Parts for threads to take: few where the images are small, for then the interpreter's lock is the limit."""
        count = len(self.rows)
        worth = PIECE_BYTES if self.decoded else READ_BYTES
        pieces = count if self.clips else int(self.rows["size"].sum()) // worth
        parts = max(1, min(workers, count, pieces))
        return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


class SetsAside(Protocol):
    """Takes a damaged sample and its row, as `Quarantine` does."""

    def add(self, row: int, damage: DamagedSample) -> None: ...


Empty = Callable[[tuple[int, ...], torch.memory_format], torch.Tensor]


class Assembler:
    """Safe to use from many threads at once; what it holds is read-only."""

    def __init__(
        self,
        split: Split,
        source: ShardSource,
        recipe: Recipe,
        counters: Counters,
        *,
        seed: int = 0,
        quarantine: SetsAside | None = None,
    ) -> None:
        """Without a ``quarantine`` a damaged sample is an error."""
        self._split, self._source, self._recipe, self._counters = split, source, recipe, counters
        self._seed, self._quarantine = seed, quarantine
        self._columns = Columns(split, recipe.fields, clip=None if recipe.clip is None else recipe.clip.field)
        self._annotations = Annotations.of(split, self._columns.names, recipe.transform, orient=recipe.orient)
        self._mix = MixStage(recipe.mixing, len(split.dataset.classes), seed) if recipe.mixing is not None else None
        self._locate: Any = split.locate
        self._shape = split.dataset.record.fields["image"].shape
        self._channels = self._shape[2] if self._shape else 3
        self._images = recipe.fields is None or "image" in recipe.fields
        self._encoded = recipe.fields is not None and "encoded" in recipe.fields
        self._batched = isinstance(recipe.transform, BatchTransform)
        self._fold = fold(recipe.transform) if isinstance(recipe.transform, BatchTransform) else None
        if self._encoded or self._fold:
            keep_freed_memory()
        self._resident: Resident | None = None
        self._empty: Empty = _empty

    def uncounted(self) -> Assembler:
        """One that makes the same batches without a trace in the counters."""
        aside = copy(self)
        aside._counters = Counters()
        return aside

    def reside(self, resident: Resident | None) -> None:
        """Take pixels from ``resident`` from now on; batches that it does not hold whole are streamed all the same."""
        self._resident = resident
        if resident is not None:
            keep_freed_memory()

    def into(self, empty: Empty | None) -> None:
        """Have the pixels of batches to come written into what ``empty`` gives; None: memory of their own."""
        self._empty = empty or _empty

    def make(self, step: Step) -> Any:
        """The whole batch, in this thread."""
        work = self.begin(step)
        self.piece(work, slice(0, len(work.rows)))
        return self.finish(work)

    def begin(self, step: Step) -> Work:
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
            slab,
            each,
            encoded=encoded,
            beside=beside,
            decoded=self._images,
            clips=self._recipe.clip is not None,
            resident=resident,
        )

    def announce(self, step: Step | None) -> bool:
        """Tell the source what a batch to come will read (`ShardSource.ahead`); None: nothing of that holds."""
        if not (self._images or self._encoded):
            return False
        rows = None if step is None else self._locate[step.index]
        return self._source.ahead(None if rows is None else Spans(rows["shard"], rows["offset"], rows["size"]))

    def piece(self, work: Work, rows: slice) -> None:
        """Read, decode and (a callable) transform some rows. Raises `DamagedSample` or `StoreDamaged`."""
        if self._annotations is not None:
            self._annotate(self._annotations, work, rows)
        if not (self._images or self._encoded):
            return
        if work.resident is not None:
            self._take(work, rows, work.resident)
            return
        where = work.rows[rows]
        with self._counters.timing("read"):
            encoded = self._read(work, rows, Spans(where["shard"], where["offset"], where["size"]))
        self._counters.add("bytes", int(where["size"].sum()))
        if self._encoded:
            work.encoded[rows] = [data if isinstance(data, bytes) else bytes(data) for data in encoded]
        if self._images:
            self._made(work, rows, encoded)

    def _annotate(self, annotations: Annotations, work: Work, rows: slice) -> None:
        """Read what stands beside the images of some rows."""

        def damage(row: int, member: str, cause: str) -> None:
            index = int(work.step.index[rows.start + row])
            found = self._damage(work, rows.start + row, cause, annotations.offset(index, member))
            if self._quarantine is None:
                raise found
            self._set_aside(work, rows.start + row, found)

        with self._counters.timing("read"):
            read = partial(self._read, work, rows)
            work.beside[rows] = annotations.read(work.step.index[rows], work.rows[rows], read, damage)
        if self._recipe.clip is not None:
            with self._counters.timing("decode"):
                decode_clips(self._recipe.clip, work.beside[rows], self._draws(work.step).take(rows), damage)

    def _take(self, work: Work, rows: slice, resident: Resident) -> None:
        """Pixels that were decoded before, and what a callable makes of them."""
        if work.slab is None:
            return  # a batched transform takes them itself
        with self._counters.timing("assemble"):
            take_rows(resident.pixels, work.step.index[rows], work.slab[rows].numpy())
            self._blank(work, rows)
        if self._recipe.transform is not None:
            with self._counters.timing("transform"):
                self._call_each(work, rows)

    def _made(self, work: Work, rows: slice, encoded: Sequence[bytes | memoryview]) -> None:
        """The images of some rows: decoded, and what a callable makes of them."""
        with self._counters.timing("decode"):
            self._decode_or_set_aside(work, rows, encoded)
            self._blank(work, rows)
        if self._recipe.transform is not None and not self._batched:
            with self._counters.timing("transform"):
                self._call_each(work, rows)

    def finish(self, work: Work) -> Any:
        """Put the fields together; runs once, after every piece."""
        step = self._settled(work)
        batch = self._collated(step, work)
        if self._recipe.batch_transform is not None:
            with self._counters.timing("transform"):
                batch = self._recipe.batch_transform(batch)
        self._count(step)
        return batch

    @property
    def place(self) -> str | None:
        """Where batches are made, in words; None on the host."""
        return None

    def received(self, made: Any) -> Any:
        """What `finish` made, in the thread that gets it."""
        return made

    def close(self) -> None:
        """Give back what batches were made with."""

    def _settled(self, work: Work) -> Step:
        """The step once all pieces are made: what was set aside is not valid, and counted."""
        if work.aside:
            self._counters.add("quarantined", len(work.aside))
        return self._valid(work)

    def _valid(self, work: Work) -> Step:
        if not work.aside:
            return work.step
        aside = np.isin(np.arange(len(work.rows)), list(work.aside))
        return replace(work.step, valid=work.step.valid & ~aside)

    def _collated(self, step: Step, work: Work) -> Any:
        """The batch before ``batch_transform``."""
        recipe, images = self._recipe, None
        if self._images:
            images = self._gathered(work)
            if isinstance(recipe.transform, BatchTransform):
                with self._counters.timing("transform"):
                    images = self._transformed(recipe.transform, work, images)
        with self._counters.timing("assemble"):
            batch = self._fields(step, work, _laid_out(images, recipe.channels_last))
        if recipe.collate is None and recipe.map is None:
            return self._shown(self._mixed(batch))
        with self._counters.timing("transform"):
            samples: list[Any] = self._columns.samples(batch)
            if recipe.map is not None:
                samples = mapped(recipe.map, samples, self._annotations, partial(self._key, step))
            if recipe.collate is not None:
                return recipe.collate(samples)
            batch = together(samples, self._annotations, recipe.fields) | {"n_global": step.n_global}
        return self._shown(batch if self._mix is None else self._mixed(self._mix.planned(batch, step)))

    def _key(self, step: Step, row: int) -> str:
        return self._split.key(int(step.index[row]))

    def _fields(self, step: Step, work: Work, images: Any) -> dict[str, Any]:
        """The fields that a batch shows, and what is drawn for mixing it."""
        beside: dict[str, Any] = {}
        if self._annotations is not None:
            transform, draws = self._recipe.transform, self._draws(step)
            beside = self._annotations.finish(work.beside, work.rows, work.aside, transform, draws)
            if (clip := self._recipe.clip) is not None:
                beside[str(clip.field)] = clips_together(clip, beside[str(clip.field)], work.rows, draws)
        batch = self._columns.of(step, work.rows, images, work.encoded, beside)
        return batch if self._mix is None or self._recipe.map is not None else self._mix.planned(batch, step)

    def _mixed(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self._mix is None:
            return batch
        with self._counters.timing("transform"):
            return self._mix.mixed(batch)

    def _shown(self, batch: dict[str, Any]) -> Any:
        """A dict, or the tuple that ``fields`` asks for."""
        fields = self._recipe.fields
        return batch if fields is None else tuple(batch[name] for name in fields)

    def _count(self, step: Step) -> None:
        self._counters.add("batches", 1)
        self._counters.add("samples", int(step.valid.sum()))

    def _transformed(self, transform: BatchTransform, work: Work, images: Any) -> Any:
        step, dtype = work.step, self._recipe.dtype
        draws = self._draws(step)
        if work.resident is not None:  # whole images: nothing of the transform was done while decoding
            if work.aside:
                pixels = take_rows(work.resident.pixels, step.index)
                pixels[list(work.aside)] = 0
                return transform(torch.from_numpy(pixels), dtype, draws)
            return transform.of_rows(work.resident.pixels, step.index, dtype, draws)
        return (transform if self._fold is None else self._fold)(images, dtype, draws)

    def _draws(self, step: Step) -> Draws:
        return Draws(self._seed, step.epoch, step.places)

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

    def _gathered(self, work: Work) -> Any:
        """Images as one tensor or a list. Which it is does not hang on what else is in the batch by chance."""
        if self._recipe.transform is None or self._batched:
            return work.each if work.slab is None else work.slab
        return work.each if self._recipe.collate is not None else stacked(work.each)

    def _read(self, work: Work, rows: slice, spans: Spans) -> Sequence[bytes | memoryview]:
        """The rows' bytes; those that a shard cut short does not hold are set aside and come empty."""
        try:
            return self._source.read_many(spans)
        except ShardCut:
            if self._quarantine is None:
                raise
        found: list[bytes | memoryview] = []
        for row, span in enumerate(spans.rows(), rows.start):
            try:
                found.append(self._source.read(*span))
            except ShardCut as cut:
                self._set_aside(work, row, self._damage(work, row, cut.problems[0].message))
                found.append(b"")
        return found

    def _decode_or_set_aside(self, work: Work, rows: slice, encoded: Sequence[bytes | memoryview]) -> None:
        """Decode all at once; where a quarantine takes the damaged ones, the rest of such a piece one by one."""
        try:
            return self._decode(work, rows, encoded)
        except DamagedSample:
            if self._quarantine is None:
                raise
        for row, data in enumerate(encoded, rows.start):
            try:
                self._decode(work, slice(row, row + 1), [data])
            except DamagedSample as damage:
                self._set_aside(work, row, damage)
        return None

    def _set_aside(self, work: Work, row: int, damage: DamagedSample) -> None:
        """Put a filler in the row and record why, once."""
        assert self._quarantine is not None
        if row in work.aside:
            return
        work.aside.add(row)
        self._fill(work, row)
        self._quarantine.add(int(work.step.index[row]), damage)

    def _fill(self, work: Work, row: int) -> None:
        if work.slab is not None:
            work.slab[row] = 0
        else:
            work.each[row] = self._filler(work, row)

    def _blank(self, work: Work, rows: slice) -> None:
        """Fillers in place of sound images whose sample is damaged beside them."""
        for row in work.aside.intersection(range(rows.start, rows.stop)):
            self._fill(work, row)

    def _filler(self, work: Work, row: int) -> torch.Tensor:
        """A black image of the size that the sample's would have."""
        whole = filler(work.rows[row], self._channels)
        if self._fold is None:
            return whole
        source = np.array([whole.shape[1:]], np.int64)
        frames = self._fold.frames(source, self._draws(work.step).take(slice(row, row + 1)))
        height, width = frames.window[0, 2:].tolist()
        return torch.zeros((self._channels, height, width), dtype=torch.uint8)

    def _damage(self, work: Work, row: int, cause: str, offset: int | None = None) -> DamagedSample:
        """``offset``: where it is in the shard, if not in the image."""
        place = work.rows[row]
        shard = self._split.shards[int(place["shard"])].name
        where = int(place["offset"]) if offset is None else offset
        return DamagedSample(shard, self._split.key(int(work.step.index[row])), where, cause)

    def _decode(self, work: Work, rows: slice, encoded: Sequence[bytes | memoryview]) -> None:
        orient = self._recipe.orient
        try:
            if self._fold is not None:
                self._decode_frames(self._fold, work, rows, encoded)
            elif work.slab is not None:
                decode_rows(encoded, work.slab[rows].numpy(), orient)
            else:
                work.each[rows] = [torch.from_numpy(image) for image in decode_each(encoded, self._channels, orient)]
        except DamagedImage as damage:
            raise self._damage(work, rows.start + (damage.position or 0), damage.cause) from damage

    def _decode_frames(self, fold: Folded, work: Work, rows: slice, encoded: Sequence[bytes | memoryview]) -> None:
        where = work.rows[rows]
        source = np.stack([where["height"], where["width"]], axis=1).astype(np.int64)
        orient = self._recipe.orient
        if orient or not source.all():  # an index that does not know
            source = sizes_of(encoded, orient)
        frames = fold.frames(source, self._draws(work.step).take(rows))
        if work.slab is not None:
            decode_framed(encoded, frames, list(work.slab[rows].numpy()), orient)
        else:
            found = outputs(frames, self._channels)
            decode_framed(encoded, frames, found, orient)
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


def _empty(shape: tuple[int, ...], form: torch.memory_format) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.uint8, memory_format=form)


def _laid_out(images: Images | Any, channels_last: bool) -> Any:
    if channels_last and isinstance(images, torch.Tensor) and images.ndim == 4:
        return images.contiguous(memory_format=torch.channels_last)
    return images
