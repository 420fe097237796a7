"""Which rows take part: where, part and max_samples over a real index."""

from __future__ import annotations

import numpy as np
import pytest

from datahub.core.errors import BadArgument
from datahub.core.settings import Settings
from datahub.order import keyhash
from datahub.store.dataset import Split, open_dataset
from datahub.store.selection import WHOLE, Selection, folds, ranges_of
from tests.store.builder import label, tiny_variant


@pytest.fixture
def split(settings: Settings) -> Split:
    tiny_variant(settings.home, splits={"train": 300}, shards=3, scalars={"weight": lambda row: row * 3})
    return open_dataset("tiny", settings)["train"]


def rows(split: Split, **chosen) -> list[int]:
    kept = Selection.of(**chosen).keep(split)
    return np.flatnonzero(kept).tolist() if kept is not None else list(range(len(split)))


def test_nothing_chosen_is_everything_and_reads_nothing(split):
    (split.dataset.path / split.entry.index).unlink()
    assert Selection.of().keep(split) is None
    assert len(rows(split, part=(0, 0.5), max_samples=10)) == 10  # keys alone decide


def test_each_and_all_together(split):
    ones = [row for row in range(300) if label("train", row) == 1]
    assert rows(split, where="label == 'square'") == ones
    part = set(rows(split, part=(0, 0.5)))
    assert 100 < len(part) < 200
    both = rows(split, where="label == 1", part=(0, 0.5))
    assert both == [row for row in ones if row in part]
    few = rows(split, where="label == 1 and weight < 600", part=[(0, 0.5)], max_samples=7)
    assert len(few) == 7 and set(few) <= {row for row in both if row < 200}


def test_parts_and_folds_are_partitions(split):
    low, high = rows(split, part=(0, 0.9)), rows(split, part=(0.9, 1))
    assert sorted(low + high) == list(range(300)) and len(low) > len(high) > 0
    held = []
    for i in range(7):
        training, out = folds(7, i)
        assert sorted(rows(split, part=training) + rows(split, part=out)) == list(range(300))
        held += rows(split, part=out)
    assert sorted(held) == list(range(300))


def test_max_samples_is_nested_and_no_more_than_there_are(split):
    few, many = rows(split, max_samples=20), rows(split, max_samples=100)
    assert set(few) < set(many) and few != list(range(20))
    assert rows(split, max_samples=10_000) == list(range(300))


def test_keys_with_gaps_keep_their_parts(split):
    """A sample that packing left out moves no other sample to another part."""
    entry = split.entry
    gapped = type(entry)(**{**{f: getattr(entry, f) for f in entry.__struct_fields__}, "gaps": [3, 4, 250]})
    shorter = Split(split.dataset, "train", gapped)
    numbers = shorter.numbers()
    assert numbers.tolist() == [gapped.number(row) for row in range(300)]
    assert numbers[:5].tolist() == [0, 1, 2, 5, 6] and numbers[-1] == 302
    kept = Selection.of(part=(0, 0.5)).keep(shorter)
    assert np.array_equal(kept, keyhash.within(np.arange(303), "train", [(0, 0.5)])[numbers])


def test_what_leaves_nothing_is_refused(split):
    with pytest.raises(BadArgument, match="label == 7': leaves none of the 300 samples of train"):
        rows(split, where="label == 7")
    with pytest.raises(BadArgument, match="part"):
        rows(split, part=(0.5, 0.5000001))


def test_ranges_are_merged_and_sorted():
    assert ranges_of([0, 1]) == ranges_of([(0, 0.4), (0.4, 1)]) == WHOLE
    assert ranges_of([(0.5, 1), (0, 0.2), (0.1, 0.3)]) == ((0.0, 0.3), (0.5, 1.0))
    assert Selection.of(part=[(0.4, 1), (0, 0.2)]).parts == "0-0.2, 0.4-1"
    assert Selection.of().parts == ""


@pytest.mark.parametrize(
    "part", [(0.9, 0.1), (0.5, 0.5), (-0.1, 1), (0, 1.1), (0, 1, 2), 0.5, "0-1", [], [(0, True)], [()]]
)
def test_bad_parts(part):
    with pytest.raises(BadArgument, match="part"):
        Selection.of(part=part)


@pytest.mark.parametrize("most", [0, -1, 2.0, True, "10"])
def test_bad_max_samples(most):
    with pytest.raises(BadArgument, match="max_samples"):
        Selection.of(max_samples=most)


@pytest.mark.parametrize(("k", "i"), [(1, 0), (5, 5), (5, -1), (2.0, 0), (3, True)])
def test_bad_folds(k, i):
    with pytest.raises(BadArgument):
        folds(k, i)


def test_a_table_takes_text_too(split):
    assert split.table(columns=["label"], where="label == 'star'")["label"].unique().to_pylist() == [2]
