"""Keeping the memory of batches of bytes from going back to the system between batches."""

from __future__ import annotations

from functools import cache

import numpy as np

FREED = 16 << 20
"""glibc keeps what is freed up to twice this, and it looks no further than blocks of 32 MiB."""


@cache
def keep_freed_memory() -> None:
    """Let the next batch's bytes lie where the last one's did.

    By default glibc returns a freed batch to the system, and the next one is faulted in page by page under a lock that
    all threads share: a third of the time of reading images from the page cache. Its thresholds adapt to the largest
    block that was ever freed (mallopt(3), M_MMAP_THRESHOLD), so one is; it is never touched. Elsewhere this does
    nothing.
    """
    np.empty(FREED, np.uint8)
