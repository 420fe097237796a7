"""`pace.c`, compiled and run: requests at a constant rate, and how long their first bytes took."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def built(folder: Path) -> Path:
    """Needs a C compiler, as ``cc``."""
    program = folder / "pace"
    subprocess.run(["cc", "-O2", "-o", str(program), str(HERE / "pace.c")], check=True)
    return program


def paced(
    program: Path, port: int, paths: list[str], *, rate: float, seconds: float, connections: int, size: int = 0,
    ranges: int = 0, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Milliseconds from the moment a request was due to its first byte and to its last, and how late it was sent, at
    percentiles.

    ``size``: bytes of a range, 0 for whole files; ``ranges``: how many of them a file has. Raises where an answer is
    none that was asked for.
    """
    numbers = [f"{rate:.3f}", f"{seconds:g}", connections, size, ranges, seed]
    command = ["taskset", "-c", "1", str(program), "127.0.0.1", str(port), *map(str, numbers), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10 * seconds + 60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
