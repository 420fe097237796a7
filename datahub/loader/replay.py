"""The exact batch of any moment of a run, as a picture and as facts: for the day a loss spikes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datahub.core.errors import BadArgument
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology
from datahub.order.formula import OrderOptions
from datahub.store.dataset import Split
from datahub.tensor.sheet import contact_sheet, save_png
from datahub.tensor.viewing import viewable

MOST = 2048
"""Thumbnails on one sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Which batch: what the run's loader was given, and where in it."""

    epoch: int
    step: int
    split: str = "train"
    seed: int = 0
    batch_size: int | None = None
    global_batch_size: int | None = None
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True
    drop_last: bool = False
    window: int | str = "all"
    lanes: int = 1
    where: str | None = None
    augment: str | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """``samples`` in the batch's order: ``index``, ``key``, ``source``, ``label``, ``class`` and ``valid`` of each."""

    ref: str
    samples: list[dict[str, Any]]
    state: Mapping[str, int | str]
    """The loader's state right after the batch."""
    position: int
    """Samples of the epoch that the whole job consumed before it."""
    n_global: int
    sheet: Path
    shown: int
    """Samples on the sheet: the first ones of a very large batch."""


def replay(ref: Ref | str, settings: Settings, moment: Moment, sheet: Path) -> Replayed:
    """Make the batch, and no other, and draw it. Damaged samples come as black thumbnails.

    Raises what `StreamingLoader` and its ``at`` raise.
    """
    with _loader(ref, settings, moment) as loader:
        batch = loader.at(moment.epoch, moment.step)
        samples = samples_of(loader.split, batch)
        images = viewable(batch["image"][:MOST], loader.recipe.transform)
        captions = [f"{name_of(each)}\n{mark_of(each)}" for each in samples[:MOST]]
        side, columns = _grid(len(images))
        save_png(contact_sheet(images, captions, size=side, columns=columns), sheet)
        state = loader.state_of(batch)
        position = moment.step * int(state["batch"])
        return Replayed(str(loader.dataset.ref), samples, state, position, batch["n_global"], sheet, len(images))


def _loader(ref: Ref | str, settings: Settings, moment: Moment) -> StreamingLoader:
    given: dict[str, Any] = {"where": moment.where} if moment.where is not None else {}
    return StreamingLoader(
        ref,
        moment.split,
        batch_size=moment.batch_size,
        global_batch_size=moment.global_batch_size,
        shuffle=moment.shuffle,
        seed=moment.seed,
        drop_last=moment.drop_last,
        transform=moment.augment,
        num_workers=0,
        order=OrderOptions(_window(moment.window), moment.lanes),
        on_error="quarantine",
        topology=Topology(moment.rank, moment.world_size),
        settings=settings,
        **given,
    )


def _window(window: int | str) -> Any:
    if window == "all" or isinstance(window, int):
        return window
    if not window.isdecimal():
        raise BadArgument("window", window, "must be 'all' or a positive number of blocks")
    return int(window)


def samples_of(split: Split, batch: Any) -> list[dict[str, Any]]:
    """What is told of each sample of a batch that is a dict."""
    classes, words = split.dataset.classes, split.dataset.words
    labels = batch["label"].tolist() if "label" in batch else [None] * len(batch["index"])
    names = words or classes
    sources = split.rows(batch["index"].numpy(), ["source"])["source"].to_pylist()
    return [
        {
            "index": index,
            "key": split.key(index),
            "source": source,
            "label": label,
            "class": names[label] if label is not None and 0 <= label < len(names) else None,
            "valid": valid,
        }
        for index, source, label, valid in zip(
            batch["index"].tolist(), sources, labels, batch["valid"].tolist(), strict=True
        )
    ]


def name_of(sample: Mapping[str, Any]) -> str:
    """Its class, or its label where that has no name."""
    return str(sample["class"] if sample["class"] is not None else "" if sample["label"] is None else sample["label"])


def mark_of(sample: Mapping[str, Any]) -> str:
    """Its number in the split, and whether it could be read."""
    number = sample["key"].rpartition("-")[2].lstrip("0") or "0"
    return f"#{number}" if sample["valid"] else f"#{number} not valid"


def _grid(count: int) -> tuple[int, int]:
    """Side of a thumbnail, and thumbnails a row."""
    return (96 if count <= 256 else 64), min(32, max(8, math.isqrt(count)))
