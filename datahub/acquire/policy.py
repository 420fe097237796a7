"""When to try again, and when to give up on a mirror."""

from __future__ import annotations

import random
from dataclasses import dataclass

from datahub.core.errors import HttpError, OriginError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter; a server's Retry-After is honoured up to a cap.

    Attempts are counted since the last byte that arrived: a slow, flaky line that makes progress is never given up.
    """

    attempts: int = 5
    base: float = 0.5
    cap: float = 30.0
    retry_after_cap: float = 120.0

    def delay(self, failures: int, error: OriginError) -> float:
        """Seconds to wait after the n-th failure in a row."""
        asked = error.retry_after if isinstance(error, HttpError) else None
        if asked is not None:
            return min(asked, self.retry_after_cap)
        return random.uniform(0.5, 1.0) * min(self.cap, self.base * 2.0 ** (failures - 1))
