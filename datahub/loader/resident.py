"""What a loader knows of its own residency: the decision, and the pixels once they are opened."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import numpy as np

from datahub.core.errors import DatahubError, DiskError, LockTimeout, StoreDamaged
from datahub.core.settings import Settings
from datahub.loader.memory import available_memory
from datahub.loader.residency import Facts, Residence, decide
from datahub.loader.residency_files import Resident, array_path, open_resident, present
from datahub.store.dataset import Split
from datahub.stream.source import ShardSource


def shows_pixels_only(fields: Sequence[str] | None) -> bool:
    """Whether batches of ``fields`` hold images, and nothing that the shards must be read for all the same."""
    return fields is None or ("image" in fields and "encoded" not in fields)


class Residency:
    """Decides when it is made, raising what `decide` raises; opens when first needed, and decodes nothing before that.

    ``images``: whether batches show pixels that need no reading. ``timeout``: seconds to wait for another process
    that decodes.
    """

    def __init__(
        self,
        wanted: str,
        split: Split,
        source: ShardSource,
        settings: Settings,
        *,
        images: bool,
        workers: int,
        timeout: float,
    ) -> None:
        self._wanted, self._split, self._source, self._settings = wanted, split, source, settings
        self._images, self._workers, self._timeout = images, max(1, workers), timeout
        self._fallen: Residence | None = None
        self._opened: Resident | None = None
        self._decided = decide(wanted, self._facts())

    @property
    def chosen(self) -> Residence:
        """What is done and why."""
        return self._fallen or self._decided

    def open(self) -> Resident | None:
        """The pixels, decoded now unless they were before; None where batches are streamed.

        Raises `DiskError`, `LockTimeout` or `StoreDamaged` where residency was asked for; ``auto`` then streams.
        """
        if self.chosen.kind == "stream" or self._opened is not None:
            return self._opened
        assert self._shape is not None
        try:
            found = open_resident(
                self._settings, self._split, self._source, self._shape, workers=self._workers, timeout=self._timeout
            )
        except (DiskError, LockTimeout, StoreDamaged) as error:
            if self._wanted != "auto":
                raise
            self._fallen = Residence("stream", f"decoding once did not work: {_first_line(error)}")
            return None
        if self.chosen.kind == "device":
            found = Resident(np.array(found.pixels), found.damaged)
        self._opened = found
        return found

    @property
    def _shape(self) -> tuple[int, int, int] | None:
        shape = self._split.dataset.record.fields["image"].shape if self._images else None
        return (shape[2], shape[0], shape[1]) if shape else None

    def _facts(self) -> Facts:
        path = array_path(self._settings, self._split)
        there = self._shape is not None and present(self._settings, self._split, self._shape)
        existing = next(each for each in path.parents if each.exists())
        try:
            disk: int | None = shutil.disk_usage(existing).free
        except OSError:
            disk = None
        return Facts(
            samples=len(self._split),
            shape=self._shape,
            images=self._images,
            present=there,
            memory=available_memory(),
            disk=disk,
            path=str(path),
            workers=self._workers,
        )


def _first_line(error: DatahubError) -> str:
    return error.message.partition("\n")[0]
