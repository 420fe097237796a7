"""Encoded bytes held in memory, on the host or on a device: read from the shards once, then no more.

For machines whose disk, network or page cache cannot feed an epoch, while memory, most of all a device's, is free. A
device's decoders read bitstreams from host memory, so that a batch of them is gathered on the device and comes back in
one copy (28 MB for 256 images of ImageNet, about a millisecond of a PCIe bus), and goes the ordinary way from there.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from datahub.core.errors import BadArgument, DeviceOutOfMemory
from datahub.core.events import Listener, Progress, ignore
from datahub.core.sizes import format_bytes
from datahub.loader.pieces import Pieces
from datahub.loader.residency import FEWER
from datahub.loader.ring import Ring
from datahub.order.population import Population
from datahub.stream.held import UNIT, HeldShards, Layout, Room, fill, room_in
from datahub.stream.memory import Memory
from datahub.stream.source import ShardSource
from datahub.stream.spans import Data, Spans
from datahub.tensor.device.hoard import Hoard
from datahub.tensor.device.lanes import Backend

STAGE = "hold"
LANES = 2
"""One that waits for its copy while another is filled, beside those on which batches are made."""


class Holding:
    """What ``pieces`` read of the shards for the rows of ``population``; held once `open` is called.

    ``backend``: where, if not on the host. Without one every process of a machine has the bytes for itself, but for a
    loader's own worker processes. ``listener`` hears how far filling is, as an item ``name``.
    """

    def __init__(
        self,
        population: Population,
        pieces: Pieces,
        source: ShardSource,
        *,
        workers: int,
        timeout: float,
        backend: Backend | None = None,
        name: str = "",
        listener: Listener = ignore,
    ) -> None:
        self._name, self._listener = name, listener
        self._population, self._pieces, self._source, self._workers = population, pieces, source, workers
        self._ring = None if backend is None else Ring(backend, timeout, LANES)
        self._opened: HeldShards | HeldOnDevice | None = None

    @property
    def size(self) -> int:
        """Bytes of memory that are needed."""
        return self._layout.end

    def open(self) -> ShardSource:
        """What answers from memory. Raises `DeviceOutOfMemory`, `BadArgument`, and what reading the shards raises."""
        if self._opened is None:
            self._opened = self._on_host() if self._ring is None else self._on_device(self._ring)
        return self._opened

    def close(self) -> None:
        """Let the memory go, once nothing that was read from it is in use."""
        self._opened = None
        if self._ring is not None:
            self._ring.close()

    @cached_property
    def _layout(self) -> Layout:
        return Layout.of(self._pieces.spans(self._population.every()))

    def _on_host(self) -> HeldShards:
        try:
            memory = Memory.taken(self._layout.end)
        except OSError as error:
            reason = f"{format_bytes(self.size)} of memory cannot be taken: {error.strerror or error}"
            raise BadArgument("residency", "encoded", reason, FEWER) from error
        return HeldShards(self._filled(room_in(memory.flat)), memory, self._source)

    def _filled(self, room: Room) -> Layout:
        def told(done: int) -> None:
            self._listener(Progress(STAGE, self._name, done, self.size))

        return fill(self._layout, self._source, room, self._workers, told)

    def _on_device(self, ring: Ring) -> HeldOnDevice:
        device = ring.backend.device
        try:
            hoard = Hoard(self._layout.end, UNIT, ring.lane, device)
            layout = self._filled(hoard.room)
        except DeviceOutOfMemory as error:
            what = f"the {format_bytes(self.size)} of encoded samples that it is to hold"
            raise DeviceOutOfMemory(str(device), error.cause, what, FEWER) from error
        return HeldOnDevice(layout, hoard, self._source)


class HeldOnDevice:
    """A `ShardSource` of what a device holds. `batch` fetches all that a batch reads at once."""

    def __init__(self, layout: Layout, hoard: Hoard, source: ShardSource) -> None:
        self._layout, self._hoard, self._source = layout, hoard, source

    def batch(self, spans: Spans) -> HeldShards:
        """A source of these spans' bytes, which are on the host now; anything else is read as it would be without."""
        places = np.unique(self._layout.find(spans))
        places = places[places >= 0]
        found = self._hoard.ranges(self._layout.start[places], self._layout.size[places])
        return HeldShards(self._layout.taken(places), Memory(found), self._source)

    def read(self, shard: int, offset: int, size: int) -> Data:
        return self.batch(Spans(*(np.array([each], np.int64) for each in (shard, offset, size)))).read(
            shard, offset, size
        )

    def read_many(self, spans: Spans) -> list[Data]:
        return self.batch(spans).read_many(spans)

    def ahead(self, spans: Spans | None) -> bool:  # noqa: ARG002
        """Everything is there already."""
        return False

    def close(self) -> None:
        self._source.close()
