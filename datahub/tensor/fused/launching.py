"""Launching Triton's kernels, which are compiled when they are first launched: for that more is needed than a card."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Callable

from datahub.tensor.device.memory import is_out_of_memory

NEEDED = "Triton needs a C compiler and Python's headers"


class Launcher:
    """Safe in threads: one at a time launches, for they would compile beside each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.obstacle: str | None = None
        """Why kernels do not run here, once that has been seen."""

    def made(self, call: Callable[[], None], kind: str, wanted: bool | None) -> bool:
        """Whether ``call`` launched kernels on a device of this ``kind``. ``wanted``: None where they can be had.

        That they cannot is warned of once, and then known. Raises what says that memory has run out, and all else
        that a launch says where it is ``wanted``.
        """
        if wanted is None:
            return self._serves(kind) and self._tried(call)
        if wanted:
            self._launch(call)
        return wanted

    def _serves(self, kind: str) -> bool:
        return kind == "cuda" and self.obstacle is None and importlib.util.find_spec("triton") is not None

    def _launch(self, call: Callable[[], None]) -> None:
        with self._lock:
            call()

    def _tried(self, call: Callable[[], None]) -> bool:
        try:
            self._launch(call)
        except Exception as error:  # whatever a compiler, a linker, a file system or a driver may say
            if is_out_of_memory(error):
                raise
            if self.obstacle is None:
                self.obstacle = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                slow = "images on the device are cropped and scaled by torch, many times slower"
                warnings.warn(f"{slow} ({self.obstacle}); {NEEDED}", RuntimeWarning, stacklevel=4)
            return False
        return True


LAUNCHER = Launcher()
"""Of this process: what Triton has compiled is the process's, too."""
