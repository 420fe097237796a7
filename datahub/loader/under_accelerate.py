"""What Hugging Face Accelerate does to iterable datasets, which would lose batches that are a rank's own already.

``prepare`` wraps a DataLoader of an iterable dataset so that the first process reads for all and hands slices round, or
so that each takes every n-th element. Both count on every process reading the same, and here each reads its own share.
"""

from __future__ import annotations

import sys
from types import FrameType

from datahub.core.errors import UsageError

MODULE = "accelerate.data_loader"
WRAPPERS = ("DataLoaderDispatcher", "IterableDatasetShard")


def refuse_wrapped() -> None:
    """Raises `UsageError` where one of those is what asks for batches.

    Told by the callers' frames: forked workers have them too, and nothing else of a wrapped DataLoader reaches its
    dataset.
    """
    if MODULE not in sys.modules:
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        asking = frame.f_locals.get("self") if frame.f_globals.get("__name__") == MODULE else None
        if type(asking).__name__ in WRAPPERS:
            reason = "Accelerate would cut up batches that are each process's own share already"
            hint = (
                "leave this DataLoader out of accelerator.prepare(), and move its batches: batch.to(accelerator.device)"
            )
            raise UsageError(reason, hint)
        frame = frame.f_back
