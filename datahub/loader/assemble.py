"""Making a batch of the samples a `Step` names: read, decode, transform, put together."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from datahub.loader.clips import clips_together
from datahub.loader.counters import Counters
from datahub.loader.mapping import mapped, stacked, together
from datahub.loader.mixing import MixStage
from datahub.loader.pieces import Pieces
from datahub.loader.recipe import Supplies
from datahub.loader.schedule import Step
from datahub.loader.work import Work
from datahub.tensor.transforms import BatchTransform, Images
from datahub.tensor.windows import take_rows


class Assembler(Pieces):
    """Makes whole batches of pieces. Safe to use from many threads at once; what it holds is read-only."""

    def __init__(self, supplies: Supplies) -> None:
        super().__init__(supplies)
        recipe, classes = supplies.recipe, len(supplies.split.dataset.classes)
        self._mix = MixStage(recipe.mixing, classes, supplies.seed) if recipe.mixing is not None else None

    def uncounted(self) -> Assembler:
        """One that makes the same batches without a trace in the counters."""
        aside = copy(self)
        aside._counters = Counters()
        return aside

    def make(self, step: Step) -> Any:
        """The whole batch, in this thread."""
        work = self.begin(step)
        self.piece(work, slice(0, len(work.rows)))
        return self.finish(work)

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
            beside = self._annotations.finish(
                work.beside, work.rows, work.aside, self._recipe.transform, work.draws, work.turns
            )
            if (clip := self._recipe.clip) is not None:
                beside[str(clip.field)] = clips_together(clip, beside[str(clip.field)], work.rows, work.draws)
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

    def _gathered(self, work: Work) -> Any:
        """Images as one tensor or a list. Which it is does not hang on what else is in the batch by chance."""
        if self._recipe.transform is None or self._batched:
            return work.each if work.slab is None else work.slab
        return work.each if self._recipe.collate is not None else stacked(work.each)

    def _transformed(self, transform: BatchTransform, work: Work, images: Any) -> Any:
        step, dtype = work.step, self._recipe.dtype
        if work.resident is not None:  # whole images: nothing of the transform was done while decoding
            if work.aside:
                pixels = take_rows(work.resident.pixels, step.index)
                pixels[list(work.aside)] = 0
                return transform(torch.from_numpy(pixels), dtype, work.draws)
            return transform.of_rows(work.resident.pixels, step.index, dtype, work.draws)
        return (transform if self._fold is None else self._fold)(images, dtype, work.draws)


def _laid_out(images: Images | Any, channels_last: bool) -> Any:
    if channels_last and isinstance(images, torch.Tensor) and images.ndim == 4:
        return images.contiguous(memory_format=torch.channels_last)
    return images
