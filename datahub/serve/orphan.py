"""A process that ends when its parent does, however that one ended."""

from __future__ import annotations

import os
import signal
import threading


def end_with(alive: int) -> None:
    """Send this process SIGTERM once the other end of the pipe ``alive`` is closed."""

    def watch() -> None:
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="datahub-parent", daemon=True).start()
