"""What a loader streams: one split, part of it, or a mixture, opened and turned into a population of the order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.core.refs import Ref
from datahub.order.formula import OrderOptions, cut_blocks
from datahub.order.mixture import RUN, Member, Mixture
from datahub.order.population import Blocks, Population
from datahub.order.strata import Strata
from datahub.registry.nearest import nearest
from datahub.store.dataset import Dataset, Split
from datahub.store.joined import JoinedSplit
from datahub.store.selection import Selection
from datahub.stream.joined import JoinedShards
from datahub.stream.mix import Mix, Weighted, member_of, whole_shares
from datahub.stream.source import ShardSource

MOST_STRATA = 1 << 16
LISTED = 16
"""Weights that a state lists one by one."""


@dataclass(frozen=True)
class Opened:
    """``split`` is a `JoinedSplit` where several are mixed."""

    split: Split
    population: Population
    selection: Selection
    mixed: str = ""
    """The mixture or the weights, as a state holds them."""
    stop: str | int = ""

    @property
    def members(self) -> tuple[Split, ...]:
        return self.split.members if isinstance(self.split, JoinedSplit) else (self.split,)

    @property
    def name(self) -> str:
        """REF:split of each member, for people."""
        return ", ".join(f"{each.dataset.ref}:{each.name}" for each in self.members)

    def source(self, opened: Callable[[Split], ShardSource]) -> ShardSource:
        """The shards of the split, each member's through ``opened``."""
        if not isinstance(self.split, JoinedSplit):
            return opened(self.split)
        return JoinedShards([opened(each) for each in self.members], [len(each.shards) for each in self.members])

    def parameters(self, batch: int) -> dict[str, str]:
        """What a state holds of the selection: with a number of steps, their length decides where the epoch ends."""
        most = self.selection.max_samples
        ends = f"{self.stop} steps of {batch}" if isinstance(self.stop, int) else self.stop
        return {
            "where": self.selection.where,
            "part": self.selection.parts,
            "max_samples": "" if most is None else str(most),
            "mix": f"{self.mixed}; stop: {ends}" if self.mixed else "",
        }


def open_members(
    ref: Any, split: str, selection: Selection, options: OrderOptions, open_dataset: Callable[[str | Ref], Dataset]
) -> Opened:
    """Open what ``ref`` stands for. Raises `NotInStore`, `UnknownSplit`, `BadArgument`."""

    def opened(name: str | Ref, own: str | None = None) -> Split:
        return open_dataset(name)[own or split]

    if isinstance(ref, Mix):
        return _mixture(ref, [opened(*member_of(name)) for name, _ in ref.members], selection)
    if isinstance(ref, Weighted):
        if options.window != "all":
            reason = "weighted sampling takes samples from anywhere"
            raise BadArgument("window", options.window, reason, 'use datahub.Order(window="all")')
        return _strata(ref, opened(ref.ref), selection)
    if not isinstance(ref, str | Ref):
        hint = "pass REF, datahub.mix({...}), datahub.balanced(REF) or datahub.weighted(REF, {...})"
        raise BadArgument("ref", ref, "is not a dataset's reference", hint)
    found = opened(ref)
    return Opened(found, _blocks(found, selection), selection)


def _blocks(split: Split, selection: Selection) -> Blocks:
    return Blocks(cut_blocks(split.shard_samples, split.block), selection.bitmap(split))


def _mixture(asked: Mix, splits: Sequence[Split], selection: Selection) -> Opened:
    names = [f"{each.dataset.ref}:{each.name}" for each in splits]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadArgument("mix", twice, "is in the mixture twice", "add its weights up")
    weights = [share for _, share in asked.members]
    # Fingerprints key the passes: the same samples come in the same order wherever, and beside whatever, they stand.
    members = [
        Member(each.fingerprint, _blocks(each, selection), name) for each, name in zip(splits, names, strict=True)
    ]
    joined = JoinedSplit(splits, weights, same_labels=asked.labels == "same")
    described = " + ".join(f"{share / RUN:g}" for share in weights)
    return Opened(joined, Mixture(members, weights, asked.stop), selection, described, asked.stop)


def _strata(asked: Weighted, split: Split, selection: Selection) -> Opened:
    strata, values = _stratum_of_rows(split, asked.by)
    kept = selection.keep(split)
    if kept is not None:
        strata = np.where(kept, strata, -1)
    counts = np.bincount(strata[strata >= 0], minlength=len(values))
    if asked.weights is None:
        chosen = np.flatnonzero(counts)
        shares: tuple[int, ...] = (1,) * len(chosen)
        described = f"balanced by {asked.by}"
    else:
        named = [_stratum(value, asked.by, split, values) for value, _ in asked.weights]
        _check_named(named, counts, asked, selection)
        shares = whole_shares([weight for _, weight in asked.weights], [value for value, _ in asked.weights])
        pairs = sorted(zip(named, shares, strict=True))
        described = f"{asked.by} weighted {_listed([(values[n], share) for n, share in pairs])}"
        chosen, shares = np.array([n for n, _ in pairs]), tuple(share for _, share in pairs)
    number = np.full(len(values) + 1, -1, np.int64)
    number[chosen] = np.arange(len(chosen))
    return Opened(split, Strata(number[strata], shares, asked.stop), selection, described, asked.stop)


def _stratum_of_rows(split: Split, by: str) -> tuple[NDArray[np.int64], list[Any]]:
    """The stratum of every row, and the value that each stratum has. Raises `BadArgument`."""
    if by == "label" and "label" in split.dataset.record.fields:
        labels = split.locate["label"].astype(np.int64)
        return labels, list(range(max(len(split.dataset.classes), int(labels.max(initial=-1)) + 1)))
    try:
        column = split.table(columns=[by])[by].combine_chunks()
    except BadArgument as error:
        raise BadArgument("by", by, "is not in the index", error.next_step) from error
    if column.type.num_fields:
        raise BadArgument("by", by, "holds a list a sample", "name a column of single values")
    encoded = column.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if len(values) > MOST_STRATA:
        raise BadArgument("by", by, f"has {len(values)} values, more than {MOST_STRATA}", "name a column with fewer")
    return encoded.indices.fill_null(-1).to_numpy().astype(np.int64), values


def _stratum(value: str | int, by: str, split: Split, values: Sequence[Any]) -> int:
    """The stratum that a person calls ``value``."""
    named = split.dataset.class_to_idx if by == "label" else {}
    found = named.get(value, value) if isinstance(value, str) else value
    if found in values:
        return values.index(found)
    known = [str(each) for each in (named or values)]
    near = nearest(str(value), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known[:20])}"
    raise BadArgument("weights", value, f"is not a {'class' if by == 'label' else by} of {split.dataset.ref}", hint)


def _listed(weights: Sequence[tuple[Any, int]]) -> str:
    """Weights as a state holds them: a digest stands for a long list, since every batch carries it."""
    text = ", ".join(f"{value}: {share}" for value, share in weights)
    if len(weights) <= LISTED:
        return text
    return f"{len(weights)} values, sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _check_named(named: Sequence[int], counts: NDArray[np.int64], asked: Weighted, selection: Selection) -> None:
    assert asked.weights is not None
    for (value, _), stratum in zip(asked.weights, named, strict=True):
        if named.count(stratum) > 1:
            raise BadArgument("weights", value, "is named twice", "give each class one weight")
        if not counts[stratum]:
            left = "" if selection == Selection() else " that where, part and max_samples leave"
            raise BadArgument("weights", value, f"has no samples{left}", "leave it out")
