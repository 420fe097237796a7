"""Batches on a device: read and cut by threads, decoded and augmented there, handed over without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.core.errors import DamagedImage
from datahub.loader.assemble import Assembler
from datahub.loader.holding import HeldOnDevice
from datahub.loader.recipe import Supplies
from datahub.loader.residency_files import Resident
from datahub.loader.ring import Ring
from datahub.loader.schedule import Step
from datahub.loader.work import Work
from datahub.tensor.decode import Encoded
from datahub.tensor.device.cargo import Cargo
from datahub.tensor.device.lanes import Lane, Ticket, Undecodable, decoded_by
from datahub.tensor.device.parts import Part, decoded_here, part_of
from datahub.tensor.device.showing import Shown, black, framed_on, laid_out, whole_on
from datahub.tensor.device.transforming import OnePass, lookup_after
from datahub.tensor.draws import Draws
from datahub.tensor.frames import Frame, Frames
from datahub.tensor.fused.apply import NUMBERS, Upload
from datahub.tensor.fused.lines import Lookup
from datahub.tensor.transforms import BatchTransform, Images
from datahub.tensor.windows import take_rows

Make = Callable[[Any, Upload], Images]
"""Images on the device, of what the cargo held for them; called in the lane's order."""


class DeviceAssembler(Assembler):
    """As `Assembler`; every tensor of a batch is on the ring's device.

    The device decodes JPEGs where it can and images differ in size or are framed; whatever else there is, the host
    decodes. Batched transforms and ``batch_transform`` run on the device; ``collate``, ``map`` and callables get what
    they get on the host, and what they return crosses.
    """

    def __init__(self, supplies: Supplies, ring: Ring) -> None:
        super().__init__(supplies)
        recipe = self._recipe
        self._ring, self._device = ring, ring.backend.device
        plain = self._images and recipe.collate is None and recipe.map is None
        self._on_device = plain and (recipe.transform is None or self._batched)
        """Whether images become what they are on the device; else the whole batch is made here and crosses."""
        apart = self._fold is not None or super()._size() is None
        self._decodes = self._on_device and apart and ring.backend.decodes() is not None
        transform = recipe.transform if isinstance(recipe.transform, BatchTransform) else None
        self._one_pass = OnePass.of(transform)
        self._last = lookup_after(self._fold) if self._fold is not None else self._one_pass.last
        self._kept: dict[str, torch.Tensor] = {}
        """What every batch needs of the device: the resident pixels."""
        self._looked_up: Lookup | None = None

    @property
    def place(self) -> str:
        decoder = self._ring.backend.decodes() if self._decodes else None
        return f"{self._device}; images are decoded by {decoder or 'the host'}"

    def make(self, step: Step) -> Any:
        return self.received(super().make(step))

    def received(self, made: Ticket[Any]) -> Any:
        return made.receive()

    def close(self) -> None:
        self._ring.close()  # lanes may still read what is kept
        self._kept.clear()
        self._looked_up = None

    def reside(self, resident: Resident | None) -> None:
        super().reside(resident)
        if resident is not None and resident.whole and self._on_device and "pixels" not in self._kept:
            self._kept["pixels"] = self._ring.keep(resident.pixels)

    def begin(self, step: Step) -> Work:
        work = super().begin(step)
        if isinstance(self._source, HeldOnDevice):
            with self._counters.timing("read"):
                work.source = self._source.batch(self.spans(step.index))
        return work

    def finish(self, work: Work) -> Ticket[Any]:
        step = self._settled(work)
        if not self._on_device:
            ticket = self._sent(Cargo([], {"batch": self._collated(step, work), "images": None}), None)
        else:
            columns = self._fields(step, work, None)
            send = self._parts_sent if self._decodes and work.resident is None else self._pixels_sent
            ticket = send(work, columns)
        self._count(self._valid(work))
        return ticket

    def _take(self, work: Work, rows: slice, resident: Resident) -> None:
        if "pixels" not in self._kept:
            super()._take(work, rows, resident)

    def _size(self) -> tuple[int, int] | None:
        return None if self._decodes else super()._size()

    def _decode(self, work: Work, rows: slice, encoded: Sequence[Encoded]) -> None:
        if self._decodes:
            self._cut(work, rows, encoded)
        else:
            super()._decode(work, rows, encoded)

    def _cut(self, work: Work, rows: slice, encoded: Sequence[Encoded]) -> None:
        """What of each image goes to the device."""
        try:
            source = self._sizes(work, rows, encoded)
            frames = Frames.whole(source) if self._fold is None else self._fold.frames(source, work.draws.take(rows))
            for row, (data, frame) in enumerate(zip(encoded, frames.rows(), strict=True)):
                work.each[rows.start + row] = Shown(self._part(row, data, frame), frame)
        except DamagedImage as damage:
            raise self._fillers.damage(work, rows.start + (damage.position or 0), damage.cause) from damage

    def _part(self, row: int, data: Encoded, frame: Frame) -> Part:
        try:
            return part_of(data, frame, self._channels, self._recipe.orient)
        except DamagedImage as damage:
            raise DamagedImage(damage.cause, row) from damage

    # -- what is on its way ---------------------------------------------------------------------------------------

    def _pixels_sent(self, work: Work, columns: dict[str, Any]) -> Ticket[Any]:
        """Images that the host has decoded, or rows of those that the device holds."""
        recipe, draws, lookup = self._recipe, work.draws, self._lookup()
        table = None if lookup is None else lookup.table
        rows: NDArray[np.int64] | None = None
        images: Any = work.each if work.slab is None else work.slab
        if work.resident is not None and "pixels" in self._kept and not work.aside:
            rows, images = work.step.index, None
        elif work.resident is not None and (work.slab is None or "pixels" in self._kept):
            images = torch.from_numpy(take_rows(work.resident.pixels, work.step.index))
            images[list(work.aside)] = 0
        rest = recipe.transform if self._fold is None or work.resident is not None else self._fold
        one_pass = self._one_pass if self._fold is None else None

        def make(given: Any, upload: Upload) -> Images:
            pixels = given if rows is None else self._kept["pixels"]
            if one_pass is None or isinstance(pixels, list):
                return whole_on(pixels, rest, recipe.dtype, draws, recipe.channels_last)  # type: ignore[arg-type]
            found = one_pass(
                pixels, rows, recipe.dtype, draws, table=table, channels_last=recipe.channels_last, upload=upload
            )
            return laid_out(found, recipe.channels_last)

        return self._sent(Cargo([], {"batch": columns, "images": images}, _room(len(work.rows))), make)

    def _parts_sent(self, work: Work, columns: dict[str, Any]) -> Ticket[Any]:
        """Images that the device decodes, and beside them what only the host could."""
        shown = [self._shown_in(work, row) for row in range(len(work.rows))]
        while True:
            try:
                return self._parts_on(shown, work.draws, columns)
            except Undecodable as refusal:
                aside = len(work.aside)
                coded = [row for row, each in enumerate(shown) if each.part.coded]
                for place in refusal.which:
                    shown[coded[place]] = self._decoded_here(work, coded[place], shown[coded[place]])
                self._counters.add("refused", len(refusal.which))
            if len(work.aside) > aside:
                self._counters.add("quarantined", len(work.aside) - aside)
                columns = self._fields(self._valid(work), work, None)

    def _parts_on(self, shown: Sequence[Shown], draws: Draws, columns: dict[str, Any]) -> Ticket[Any]:
        recipe, fold, lookup = self._recipe, self._fold, self._lookup()
        coded = [each.part.data for each in shown if each.part.coded]
        pixels = [torch.from_numpy(each.part.data) for each in shown if not each.part.coded]
        cargo = Cargo(coded, {"batch": columns, "images": pixels}, _room(len(shown)))  # type: ignore[arg-type]
        with self._ring.lane() as lane:
            staged = cargo.load(lane)
            with self._counters.timing("decode"):
                decoded = decoded_by(lane, staged, self._channels)

            def make(given: Any, upload: Upload) -> Images:
                ready, others = iter(decoded), iter(given)
                images = [next(ready) if each.part.coded else next(others).permute(2, 0, 1) for each in shown]
                if fold is None:
                    whole: Any = recipe.transform
                    return whole_on(
                        [each.contiguous() for each in images], whole, recipe.dtype, draws, recipe.channels_last
                    )
                return framed_on(
                    images, shown, fold, recipe.dtype, draws,
                    lookup=lookup, channels_last=recipe.channels_last, upload=upload,
                )  # fmt: skip

            return self._enqueued(lane, cargo, make)

    def _sent(self, cargo: Cargo, make: Make | None) -> Ticket[Any]:
        with self._ring.lane() as lane:
            cargo.load(lane)
            return self._enqueued(lane, cargo, make)

    def _enqueued(self, lane: Lane, cargo: Cargo, make: Make | None) -> Ticket[Any]:
        device, call = self._device, self._recipe.batch_transform

        def work() -> Any:
            found = cargo.unload(device)
            batch = found["batch"]
            if make is not None:
                batch["image"] = make(found["images"], partial(cargo.upload, device=device))
                batch = self._shown(batch if self._mix is None else self._mix.mixed(batch))
            return batch if call is None else call(batch)

        with self._counters.timing("transform"):
            return lane.enqueue(work)

    def _lookup(self) -> Lookup | None:
        """The lookup that ends the transform, on the device. No lane may be held."""
        if self._last is None:
            return None
        if self._looked_up is None:
            table, line = self._last.lookup(self._recipe.dtype, self._channels)
            there = self._ring.keep(table.view(torch.uint8).numpy()).view(table.dtype)
            self._looked_up = Lookup(there, None if line is None else self._ring.keep(line.numpy()))
        return self._looked_up

    def _shown_in(self, work: Work, row: int) -> Shown:
        each: Shown | torch.Tensor = work.each[row]
        if isinstance(each, Shown):
            return each
        return black((each.shape[1], each.shape[2]), self._channels, whole=self._fold is None)

    def _decoded_here(self, work: Work, row: int, each: Shown) -> Shown:
        try:
            return each._replace(part=decoded_here(each.part, self._channels))
        except DamagedImage as error:
            damage = self._fillers.damage(work, row, error.cause)
            if not self._fillers.allowed:
                raise damage from error
            self._fillers.set_aside(work, row, damage)
        return self._shown_in(work, row)


def _room(rows: int) -> int:
    """Numbers that the kernels are told of so many rows, and a little more."""
    return rows * NUMBERS + 64
