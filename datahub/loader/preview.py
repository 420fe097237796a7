"""A contact sheet of some samples, as a person or as the model sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.loader.replay import mark_of, name_of, samples_of
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology
from datahub.store.dataset import Split
from datahub.tensor.marks import Marks, marked
from datahub.tensor.sheet import contact_sheet, save_png
from datahub.tensor.viewing import viewable

MOST = 1024
"""Thumbnails on one sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What to show. ``split``: None for train, or the first where there is none."""

    split: str | None = None
    count: int = 36
    seed: int = 0
    epoch: int = 0
    shuffle: bool = True
    where: str | None = None
    augment: str | None = None
    """Preset; other epochs and seeds show other draws of it."""
    fields: tuple[str, ...] | None = None
    """None: image, class, boxes, masks and keypoints, whatever there is."""
    size: int = 160
    """Pixels of a thumbnail's longer side."""
    columns: int | None = None


@dataclass(frozen=True, slots=True)
class Previewed:
    """``samples`` as `datahub.loader.replay` tells them, in the sheet's order."""

    ref: str
    split: str
    of: int
    """Samples there are, after the filter."""
    samples: list[dict[str, Any]]
    sheet: Path


def preview(ref: Ref, settings: Settings, view: View, sheet: Path) -> Previewed:
    """Draw the first ``count`` samples of an epoch. Damaged ones come as black thumbnails.

    Raises what `StreamingLoader` raises, and `DiskError`s.
    """
    with _loader(ref, settings, view) as loader:
        batch = loader.at(view.epoch, 0)
        if loader.recipe.fields is not None:
            batch = dict(zip(loader.recipe.fields, batch, strict=True))
        samples = samples_of(loader.split, batch)
        images = viewable(batch["image"], loader.recipe.transform)
        marks = _Marking(loader.split, batch)
        shown = [
            marked(image, marks.of(row) if sample["valid"] else Marks(), view.size)
            for row, (image, sample) in enumerate(zip(images, samples, strict=True))
        ]
        captions = [_caption(sample) for sample in samples]
        columns = view.columns or math.ceil(math.sqrt(len(shown)))
        save_png(contact_sheet(shown, captions, size=view.size, columns=columns), sheet)
        return Previewed(str(loader.dataset.ref), loader.split.name, loader.samples, samples, sheet)


def _loader(ref: Ref, settings: Settings, view: View) -> StreamingLoader:
    dataset = open_dataset(ref, settings)
    own, splits = dataset.record.fields, list(dataset.splits)
    fields = view.fields
    if fields is not None:
        beside = ("image", *(["label"] if "label" in own else []), "index", "valid")
        fields = (*fields, *(each for each in beside if each not in fields))
    return StreamingLoader(
        ref,
        view.split or ("train" if "train" in splits else splits[0]),
        batch_size=view.count,
        shuffle=view.shuffle,
        seed=view.seed,
        transform=view.augment,
        fields=fields,
        where=view.where,
        num_workers=0,
        residency="stream",
        on_error="quarantine",
        topology=Topology(),
        settings=settings,
    )


class _Marking:
    """The marks of a batch's rows: of each kind, the first field there is."""

    def __init__(self, split: Split, batch: Mapping[str, Any]) -> None:
        self._names = split.dataset.words or split.dataset.classes
        own = split.dataset.record.fields
        kinds = ("boxes", "labels", "masks", "mask", "keypoints", "visibility")
        found = {kind: next((name for name in batch if name in own and own[name].type == kind), None) for kind in kinds}
        self._values = {kind: batch[name] for kind, name in found.items() if name is not None}

    def of(self, row: int) -> Marks:
        got = {kind: values[row] for kind, values in self._values.items()}
        names, visible = got.get("labels"), got.get("visibility")
        return Marks(
            boxes=got.get("boxes"),
            names=None if names is None else [self._name(number) for number in names.tolist()],
            masks=got.get("masks"),
            classes=got.get("mask"),
            points=got.get("keypoints"),
            visible=None if visible is None else torch.as_tensor(visible > 0),
        )

    def _name(self, number: int) -> str:
        names: Sequence[str] = self._names
        return str(names[number]) if 0 <= number < len(names) else str(number)


def _caption(sample: Mapping[str, Any]) -> str:
    return "\n".join(part for part in (name_of(sample), mark_of(sample)) if part)
