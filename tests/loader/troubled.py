"""A transform that does what a file says: for tests of what becomes of worker processes. Imports little."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch


def troubled(image: torch.Tensor, order: Path) -> torch.Tensor:
    what = order.read_text()
    if what == "raise":
        raise KeyError("mine")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(600)
    return image.float().mean(dim=(1, 2))
