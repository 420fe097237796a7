"""Memory that a thread uses again for every image: it stays in the core's cache, and costs no page faults."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

CAP = 16 << 20
"""Bytes above which a buffer is not kept."""

_thread = threading.local()


def scratch(name: str, shape: tuple[int, ...]) -> Pixels:
    """Uninitialised uint8 of ``shape``: this thread's buffer ``name``, until it asks for that name again."""
    size = 1
    for side in shape:
        size *= side
    kept: Pixels | None = getattr(_thread, name, None)
    if kept is None or len(kept) < size:
        kept = np.empty(size, np.uint8)
        if size <= CAP:
            setattr(_thread, name, kept)
    return kept[:size].reshape(shape)
