"""Lanes on a CUDA device: a stream, pinned memory and an event each.

Nothing here waits for the caller's stream, nor makes it wait on the host: receiving is ``wait_event`` and
``record_stream``. Memory of a lane comes from its own stream's pool of PyTorch's allocator. nvJPEG's hardware engine
does not keep to a stream's order (pytorch/vision pull 9606): it writes into blocks that the allocator hands out while
queued kernels still read them. So a lane is drained, on the host, before it decodes, and lanes share no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from datahub.tensor.device.decoders import Decoder
from datahub.tensor.device.memory import memory_of
from datahub.tensor.device.tree import tensors_in

T = TypeVar("T")
URGENT = -1
"""Lanes' kernels are short, and a training step's should not be waited for."""
GROWTH = 1.25
"""Pinned memory is taken with room to spare: taking it stops the device."""


class Cuda:
    """The device ``cuda:index``. ``decoder``: None leaves JPEGs to the host."""

    def __init__(self, index: int, decoder: Decoder | None) -> None:
        self.device = torch.device("cuda", index)
        self._decoder = decoder

    def lane(self) -> CudaLane:
        with memory_of(self.device):
            return CudaLane(self.device, self._decoder)

    def decodes(self) -> str | None:
        return None if self._decoder is None else self._decoder.name

    def free_memory(self) -> int | None:
        free, _ = torch.cuda.mem_get_info(self.device)
        return int(free)


class CudaTicket(Generic[T]):
    def __init__(self, made: T, event: torch.cuda.Event, device: torch.device) -> None:
        self._made, self._event, self._device = made, event, device

    def receive(self) -> T:
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._event)
        for tensor in tensors_in(self._made):
            if tensor.is_cuda:
                tensor.record_stream(current)
        return self._made


class CudaLane:
    def __init__(self, device: torch.device, decoder: Decoder | None) -> None:
        self._device, self._decoder = device, decoder
        self._stream = torch.cuda.Stream(device, priority=URGENT)  # type: ignore[no-untyped-call]
        self._last: torch.cuda.Event | None = None
        self._pinned = torch.empty(0, dtype=torch.uint8)
        self._held: list[object] = []
        """What queued work reads. Decoders with memory of their own give it to the next decode once it is let go."""

    def stage(self, size: int) -> torch.Tensor:
        self.drain()
        if len(self._pinned) < size:
            with memory_of(self._device), torch.cuda.device(self._device):  # else it is the first device's to know of
                self._pinned = torch.empty(int(size * GROWTH), dtype=torch.uint8, pin_memory=True)
        return self._pinned[:size]

    def decode(self, encoded: Sequence[torch.Tensor], channels: int) -> list[torch.Tensor]:
        assert self._decoder is not None
        with self._current():
            # Also of what is not this lane's: PyTorch has 32 streams of a priority and gives them out in turn.
            self._mark()
            self.drain()
            try:
                return self._decoder.decode(encoded, channels, self._device, self._stream)
            finally:
                self._mark()

    def enqueue(self, work: Callable[[], T]) -> CudaTicket[T]:
        with self._current():
            try:
                made = work()
            finally:  # what it queued before it failed is waited for all the same
                event = self._mark()
                self._held.append(work)
        return CudaTicket(made, event, self._device)

    def drain(self) -> None:
        if self._last is not None:
            self._last.synchronize()
            self._last = None
        self._held.clear()

    def _mark(self) -> torch.cuda.Event:
        # Whoever waits for it sleeps: threads that spin would take a processor from those that read and cut.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        self._last = event
        return event

    @contextmanager
    def _current(self) -> Iterator[None]:
        """The lane's device and stream are this thread's current ones."""
        with memory_of(self._device), torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield
