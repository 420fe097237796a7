"""What a loader knows of its own residency: the decision, and the pixels or bytes once they are opened."""

from __future__ import annotations

import shutil

import numpy as np

from datahub.core.errors import DatahubError, DiskError, LockTimeout, StoreDamaged
from datahub.core.settings import Settings
from datahub.loader.holding import Holding
from datahub.loader.memory import available_memory
from datahub.loader.recipe import Recipe
from datahub.loader.residency import Facts, Residence, decide
from datahub.loader.residency_files import Mapped, Resident, array_path, open_resident, present
from datahub.store.dataset import Split
from datahub.store.joined import JoinedSplit
from datahub.stream.source import ShardSource
from datahub.tensor.batched import BatchTransform
from datahub.tensor.device.lanes import Backend
from datahub.tensor.folding import fold


def obstacle(split: Split, recipe: Recipe) -> str | None:
    """What about the batches themselves speaks for streaming them; None where they take whole decoded images alone."""
    if recipe.fields is not None and "image" not in recipe.fields:
        return "batches hold no image"
    if recipe.fields is not None and "encoded" in recipe.fields:
        return "batches hold the encoded bytes, too"
    if isinstance(recipe.transform, BatchTransform) and fold(recipe.transform) is not None:
        return "the transform crops or scales before anything is decoded"
    if recipe.orient:
        return "images are turned by their EXIF orientation"
    return "several splits are mixed" if isinstance(split, JoinedSplit) else None


class Residency:
    """Decides when it is made, raising what `decide` raises; opens when first needed, and decodes nothing before that.

    ``timeout``: seconds to wait for another process that decodes. ``holding``: of encoded bytes, where those are asked
    for, in each of ``ranks`` processes of this machine.
    """

    def __init__(
        self,
        wanted: str,
        split: Split,
        source: ShardSource,
        settings: Settings,
        recipe: Recipe,
        *,
        workers: int,
        timeout: float,
        holding: Holding,
        ranks: int = 1,
        backend: Backend | None = None,
    ) -> None:
        self._backend, self._holding, self._ranks = backend, holding, ranks
        self._wanted, self._split, self._source, self._settings = wanted, split, source, settings
        self._workers, self._timeout = max(1, workers), timeout
        self._obstacle = obstacle(split, recipe)
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
        if self.chosen.kind in ("stream", "encoded") or self._opened is not None:
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
            # A device takes its copy from the map.
            pixels = np.array(found.pixels) if self._backend is None else found.pixels
            found = Resident(pixels, found.damaged, whole=True)
        self._opened = found
        return found

    def hold(self) -> ShardSource | None:
        """What answers from memory, into which the shards are read now unless they were before; None: they are read.

        Raises as `Holding.open` does.
        """
        return self._holding.open() if self.chosen.kind == "encoded" else None

    def close(self) -> None:
        self._holding.close()

    def mapped(self) -> Mapped | None:
        """The file of the pixels that `open` found, for other processes to map."""
        if self._opened is None:
            return None
        return Mapped(str(array_path(self._settings, self._split)), self._opened.damaged)

    @property
    def _shape(self) -> tuple[int, int, int] | None:
        shape = self._split.dataset.record.fields["image"].shape
        return (shape[2], shape[0], shape[1]) if shape else None

    def _facts(self) -> Facts:
        path = array_path(self._settings, self._split)
        plain = self._obstacle is None and self._shape is not None
        there = plain and self._shape is not None and present(self._settings, self._split, self._shape)
        existing = next(each for each in path.parents if each.exists())
        try:
            disk: int | None = shutil.disk_usage(existing).free
        except OSError:
            disk = None
        return Facts(
            samples=len(self._split),
            shape=self._shape,
            obstacle=self._obstacle,
            present=there,
            memory=available_memory(),
            disk=disk,
            path=str(path),
            workers=self._workers,
            device=None if self._backend is None else str(self._backend.device),
            device_memory=None if self._backend is None else self._backend.free_memory(),
            encoded=self._holding.size if self._wanted == "encoded" else 0,
            ranks=self._ranks,
        )


def _first_line(error: DatahubError) -> str:
    return error.message.partition("\n")[0]
