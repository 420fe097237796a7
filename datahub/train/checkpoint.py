"""Checkpoints of the reference job: one file, written whole, holding everything that the next step depends on."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datahub.core import atomic
from datahub.core.errors import BadArgument, NotReadable

VERSION = 1
FILENAME = "checkpoint.pt"
BEST = "best.pt"


def save(path: Path, parts: Mapping[str, Any]) -> None:
    """Write ``parts`` at ``path``; readers see the old file or the new one. Raises `DiskError`s."""
    with atomic.writing(path) as handle:
        torch.save({"version": VERSION, **parts}, handle)


def load(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint at ``path``. Raises `BadArgument` where it belongs to a run with other ``facts``."""
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise BadArgument("dir", str(path), "is damaged, or no checkpoint", "remove it, or use another") from error
    if not isinstance(found, dict) or found.get("version") != VERSION or not isinstance(found.get("facts"), dict):
        raise BadArgument("dir", str(path), "is no checkpoint of this version", "name another --dir")
    before: dict[str, Any] = found["facts"]
    changed = [
        f"{name} was {before.get(name)}, is {value}" for name, value in facts.items() if before.get(name) != value
    ]
    if changed:
        raise BadArgument("dir", str(path), "; ".join(changed), "say what it was begun with, or name another --dir")
    return found
