"""Memory that a worker fills and the caller reads in place: a file without a name, gone with its last user.

A worker writes a batch's large tensors where the caller will see them, and everything else as one pickle behind them.
What crosses the boundary is the file's descriptor and two numbers. Nothing appears in ``/dev/shm`` (whose size
containers limit), and nothing is left when a process is killed: the kernel counts the users.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

SMALL = 1 << 16
"""Bytes of a tensor up to which it is copied: a label kept for long must not keep a batch of pixels in memory."""
_PAGE = mmap.PAGESIZE


class Slab:
    """One of them, empty at first; its descriptor is closed with it."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("datahub-batch", os.MFD_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # modules may be gone before the last of them
        close(self.descriptor)


class Filling:
    """A worker's view of a slab: memory handed out from its start on, and at last the pickle that describes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size
        self._end = 0
        self._places: list[tuple[int, int, int]] = []
        """Address, size and offset of the parts handed out."""

    def empty(self, shape: tuple[int, ...], form: torch.memory_format) -> torch.Tensor:
        """Uint8 memory for ``shape``, as ``torch.empty`` gives it, in the slab."""
        flat = self._take(int(np.prod(shape)))
        if form == torch.channels_last and len(shape) == 4:
            count, channels, height, width = shape
            return flat.view(count, height, width, channels).permute(0, 3, 1, 2)
        return flat.view(shape)

    def write(self, value: Any) -> tuple[int, int]:
        """Put ``value`` into the slab; where its pickle begins and ends. Raises what pickling raises."""
        buffer = io.BytesIO()
        _Pickler(buffer, self._described).dump(value)
        data = buffer.getbuffer()
        start = self._end
        self._grow(start + len(data))
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], start + written)
        return start, start + len(data)

    def _take(self, size: int) -> torch.Tensor:
        start, length = self._end, max(_PAGE, -(-size // _PAGE) * _PAGE)
        self._grow(start + length)
        self._end = start + length
        memory = mmap.mmap(self._descriptor, length, offset=start)
        flat = torch.frombuffer(memory, dtype=torch.uint8)[:size]
        self._places.append((flat.data_ptr(), length, start))
        return flat

    def _grow(self, size: int) -> None:
        if size > self._size:
            os.ftruncate(self._descriptor, size)
            self._size = size

    def _described(self, tensor: torch.Tensor) -> tuple[Any, ...] | None:
        """Where in the slab the tensor lies, copied there if need be; None for what is pickled as usual."""
        plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.requires_grad
        if not plain or tensor.dtype.is_complex or tensor.is_quantized or tensor.numel() == 0:
            return None
        span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        if tensor.numel() * tensor.element_size() <= SMALL:
            return None
        address = tensor.data_ptr()
        for start, length, offset in self._places:
            if start <= address and address + span * tensor.element_size() <= start + length:
                return offset + address - start, tuple(tensor.shape), tensor.stride(), tensor.dtype
        flat = self._take(tensor.numel() * tensor.element_size()).view(tensor.dtype)
        kept = torch.empty_like(tensor, device="meta").stride()  # dense, in the order that the tensor has
        flat.as_strided(tuple(tensor.shape), kept).copy_(tensor.detach())
        return self._places[-1][2], tuple(tensor.shape), kept, tensor.dtype


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, described: Callable[[torch.Tensor], tuple[Any, ...] | None]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._described = described

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return None
        where = self._described(value)
        if where is None or type(value) is torch.Tensor:
            return where
        return (*where, type(value), dict(value.__dict__))

    def reducer_override(self, value: Any) -> Any:
        """Small plain tensors by their bytes: torch's own way writes a file for each."""
        if type(value) is not torch.Tensor or value.device.type != "cpu" or value.layout != torch.strided:
            return NotImplemented
        if value.requires_grad or value.is_quantized or value.dtype in (torch.bfloat16, *_COMPLEX):
            return NotImplemented
        return _tensor_of, (value.numpy(),)


_COMPLEX = (torch.complex32, torch.complex64, torch.complex128)


def _tensor_of(array: Any) -> torch.Tensor:
    return torch.from_numpy(array)


def read(descriptor: int, start: int, end: int, released: Callable[[], None]) -> Any:
    """What a worker wrote. ``released`` is called when none of its memory is in use any more, by any thread."""
    data = bytearray()
    while len(data) < end - start:
        part = os.pread(descriptor, end - start - len(data), start + len(data))
        if not part:
            raise EOFError("the batch is cut short")
        data += part
    reading = _Unpickler(data, descriptor, start, released)
    value = reading.load()
    if not reading.mapped:
        released()
    return value


class _Unpickler(pickle.Unpickler):
    """Reads what this program wrote, in a process it started, through memory that nobody else can open."""

    def __init__(self, data: bytearray, descriptor: int, size: int, released: Callable[[], None]) -> None:
        super().__init__(io.BytesIO(data))
        self._descriptor, self._size, self._released = descriptor, size, released
        self._storage: torch.UntypedStorage | None = None

    @property
    def mapped(self) -> bool:
        return self._storage is not None

    def persistent_load(self, where: Any) -> torch.Tensor:
        offset, shape, stride, dtype, *more = where
        if self._storage is None:
            self._storage = self._mapped()
        whole = torch.empty(0, dtype=dtype)
        found = whole.set_(self._storage, offset // dtype.itemsize, shape, stride)
        if not more:
            return found
        kind, facts = more
        dressed: torch.Tensor = found.as_subclass(kind)
        dressed.__dict__.update(facts)
        return dressed

    def _mapped(self) -> torch.UntypedStorage:
        """Not through `mmap`, which keeps a descriptor of its own for as long as a batch is in use."""
        path = f"/proc/self/fd/{self._descriptor}"
        memory = torch.from_file(path, shared=True, size=self._size, dtype=torch.uint8).numpy()
        weakref.finalize(memory, self._released).atexit = False
        return torch.from_numpy(memory).untyped_storage()
