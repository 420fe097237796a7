"""Filters, parts, mixtures and weighted sampling through the whole loader."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import msgspec
import pytest
import torch

import datahub
from datahub.core.errors import BadArgument, BadReference, DamagedSample, NotInStore, StateMismatch, UnknownSplit
from datahub.loader.topology import Topology
from datahub.store import record
from datahub.stream.mix import whole_shares
from tests.loader.conftest import check, same, seen
from tests.store.builder import commit, damaged, label, pixels, tiny_variant

FORTIES = [row for row in range(50) if label("train", row) == 1 and row * 3 < 120]


@pytest.fixture
def mixed(home):
    """A second dataset beside ``tiny``: the same classes and shape, other samples."""
    tiny_variant(
        home.home, "other", splits={"train": 30, "test": 5}, shards=2, block=4, scalars={"weight": lambda r: r}
    )
    return home


def pairs(batches) -> list[tuple[int, int]]:
    return [
        (int(d), int(i))
        for batch in batches
        for d, i, valid in zip(batch["dataset"], batch["index"], batch["valid"], strict=True)
        if valid
    ]


def test_a_filter_streams_what_it_keeps(make):
    loader = make(where="label == 'square' and weight < 120", shuffle=True)
    batches = list(loader)
    assert sorted(seen(batches)) == FORTIES and len(loader) == -(-len(FORTIES) // 8)
    for batch in batches:
        check(batch)
    assert f"{len(FORTIES)} an epoch" in loader.explain()


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("order", [datahub.Order(), datahub.Order(window=2, lanes=4)])
def test_a_selection_is_exact_on_any_world_size(make, world_size, order):
    chosen = {"where": "label != 0", "part": [(0, 0.3), (0.5, 1)], "max_samples": 19, "order": order, "shuffle": True}
    whole = list(make(global_batch_size=8, **chosen))
    rows = seen(whole)
    assert len(rows) == len(set(rows)) == 19 and all(label("train", row) for row in rows)
    parts = [
        list(make(global_batch_size=8, topology=Topology(rank, world_size), **chosen)) for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        joined = [row for part in parts for row in part[step]["index"][part[step]["valid"]].tolist()]
        assert joined == batch["index"].tolist()


def test_a_selection_resumes_and_refuses_another(make):
    chosen = {"where": "label in (1,2)", "shuffle": True}
    whole = list(make(**chosen))
    state = whole[1].state
    resumed = make(where=" label in (1, 2) ", shuffle=True)
    resumed.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(resumed, whole[2:], strict=True))
    for change, message in [
        ({"where": "label == 1"}, r"where was label in \(1, 2\), is label == 1"),
        ({"where": None}, r"where was label in \(1, 2\), is none"),
        ({"part": (0, 0.9)}, "part was none, is 0-0.9"),
        ({"max_samples": 30}, "max_samples was none, is 30"),
        ({"ref": datahub.balanced("tiny")}, "mix was none, is balanced by label"),
    ]:
        with pytest.raises(StateMismatch, match=message):
            make(**{**chosen, **change}).load_state_dict(state)


def test_a_state_from_before_there_were_filters_is_taken(make):
    state = {k: v for k, v in make().state_dict().items() if k not in ("where", "part", "max_samples", "mix")}
    make().load_state_dict({**state, "position": 8})
    with pytest.raises(StateMismatch, match="where was none, is label == 1"):
        make(where="label == 1").load_state_dict({**state, "position": 8})


@pytest.mark.parametrize("order", [datahub.Order(), datahub.Order(window=2, lanes=2)])
def test_a_mixture_shows_whose_samples_they_are(make, mixed, order):
    loader = make(ref=datahub.mix({"tiny": 0.6, "other": 0.4}), shuffle=True, order=order)
    batches = list(loader)
    counts = Counter(d for d, _ in pairs(batches))
    assert sum(counts.values()) == loader.samples and len(batches) == len(loader)
    assert {i for d, i in pairs(batches) if d == 0} == set(range(50))
    assert {i for d, i in pairs(batches) if d == 1} == set(range(30))
    for batch in batches:
        for row, index in enumerate(batch["index"].tolist()):
            assert torch.equal(batch["image"][row], torch.from_numpy(pixels("train", index)).permute(2, 0, 1))
            assert batch["label"][row] == label("train", index)


def test_a_mixture_reads_the_right_member(make, home):
    """Members whose pixels differ: the image is that of the row in the member that ``dataset`` names."""
    tiny_variant(home.home, "gray", splits={"train": 30}, shards=2, block=4, size=(12, 10), channels=3, format="jpeg")
    loader = make(ref=datahub.mix({"gray": 0.5, "tiny:test": 0.5}), shuffle=True, batch_size=6, fields=None)
    splits = (datahub.open("gray", home)["train"], datahub.open("tiny", home)["test"])
    for batch in loader:
        for row, (member, index) in enumerate(pairs([batch])):
            assert torch.equal(batch["image"][row], splits[member][index]["image"])
            assert batch["label"][row] == splits[member][index]["label"]


def test_fields_of_a_mixture(make, mixed):
    wanted = ("image", "label", "dataset", "index", "key", "source", "weight")
    for batch in make(ref=datahub.mix({"tiny": 0.5, "other": 0.5}), fields=wanted, shuffle=True):
        _, _, member, index, key, _, weight = batch
        assert key == [f"train-{row:09d}" for row in index.tolist()]
        assert weight.tolist() == [
            row * (1 if d else 3) for d, row in zip(member.tolist(), index.tolist(), strict=True)
        ]
    with pytest.raises(BadArgument, match="dataset"):
        make(fields=("image", "dataset"))


@pytest.mark.parametrize(
    "ref",
    [
        datahub.mix({"tiny": 0.75, "other": 0.25}, stop=6),
        datahub.mix({"tiny": 0.7, "other:test": 0.3}, stop="shortest"),
        datahub.balanced("tiny"),
        datahub.weighted("tiny", {"star": 3, 0: 1}, stop="longest"),
    ],
    ids=["steps", "shortest", "balanced", "weighted"],
)
def test_elastic_and_resumable_like_one_dataset(make, mixed, ref):
    order = datahub.Order(lanes=2)
    arguments = {
        "ref": ref,
        "global_batch_size": 6,
        "shuffle": True,
        "seed": 5,
        "order": order,
        "where": "weight < 140",
    }
    whole = list(make(**arguments))
    assert len(whole) == len(make(**arguments))
    for world_size in (2, 4):
        parts = []
        for rank in range(world_size):
            loader = make(**arguments, topology=Topology(rank, world_size))
            loader.load_state_dict(whole[0].state)
            parts.append(list(loader))
        assert {len(part) for part in parts} == {len(whole) - 1}
        for step, batch in enumerate(whole[1:]):
            for name in ("index", "image", "label"):
                joined = torch.cat([part[step][name][part[step]["valid"]] for part in parts])
                assert torch.equal(joined, batch[name][batch["valid"]])
            assert sum(int(part[step]["valid"].sum()) for part in parts) == batch["n_global"]
    loader = make(**arguments)
    assert same(loader.at(0, 2), whole[2])


def test_epochs_of_a_mixture_differ_and_are_of_one_length(make, mixed):
    loader = make(ref=datahub.mix({"tiny": 0.7, "other": 0.3}), shuffle=True)
    first, second = list(loader), list(loader)
    assert len(first) == len(second) and pairs(first) != pairs(second)
    counted = [Counter(d for d, _ in pairs(each)) for each in (first, second)]
    assert counted[0] == counted[1]


def test_a_changed_mixture_is_refused(make, mixed):
    state = make(ref=datahub.mix({"tiny": 0.7, "other": 0.3}, stop=5)).state_dict()
    for ref, message in [
        (datahub.mix({"tiny": 0.6, "other": 0.4}, stop=5), r"mix was 0.7 \+ 0.3; stop: 5 steps of 8, is 0.6 \+ 0.4"),
        (datahub.mix({"tiny": 0.7, "other": 0.3}), "stop: longest"),
        (datahub.mix({"tiny": 0.7, "other:test": 0.3}, stop=5), "the dataset was tiny@1.0/published:train, other"),
        ("tiny", "is none"),
    ]:
        with pytest.raises(StateMismatch, match=message):
            make(ref=ref).load_state_dict(state)
    longer = make(ref=datahub.mix({"tiny": 0.7, "other": 0.3}, stop=5), batch_size=16)
    with pytest.raises(StateMismatch, match="steps of 8"):  # the epoch would end elsewhere
        longer.load_state_dict(state, allow=("batch_size",))
    whole = make(ref=datahub.mix({"tiny": 0.7, "other": 0.3}), batch_size=16)
    whole.load_state_dict(make(ref=datahub.mix({"tiny": 0.7, "other": 0.3})).state_dict(), allow=("batch_size",))


def test_balanced_batches_hold_classes_equally(make):
    batches = list(make(ref=datahub.balanced("tiny"), batch_size=9, shuffle=True))
    assert [Counter(batch["label"].tolist()) for batch in batches[:-1]] == [Counter({0: 3, 1: 3, 2: 3})] * 5
    assert sum(len(batch["index"]) for batch in batches) == 50
    for batch in batches:
        check(batch)


def test_weighted_by_name_number_and_column(make):
    one = seen(list(make(ref=datahub.weighted("tiny", {"star": 2, "circle": 1}), shuffle=True)))
    assert Counter(label("train", row) for row in one) == {2: 23, 0: 11}  # 34 rows are of the two: 11 runs and one more
    rows = seen(list(make(ref=datahub.weighted("tiny", {0: 1, 3: 1, 147: 1}, by="weight", stop="longest"))))
    assert sorted(rows) == [0, 1, 49]
    assert len(seen(list(make(ref=datahub.balanced("tiny", by="weight"))))) == 50


def test_labels_must_mean_the_same(make, home):
    tiny_variant(home.home, "bare", labelled=False, splits={"train": 20})
    with pytest.raises(BadArgument, match=r'tiny@1.0/published has labels, bare@1.0/published has none.*labels="own"'):
        make(ref=datahub.mix({"tiny": 0.5, "bare": 0.5}))
    loader = make(ref=datahub.mix({"tiny": 0.5, "bare": 0.5}, labels="own"))
    for batch in loader:
        expected = [label("train", i) if d == 0 else -1 for d, i in pairs([batch])]
        assert batch["label"].tolist() == expected
    folder = tiny_variant(home.home, "renamed", splits={"train": 20})
    found = record.read(folder)
    commit(folder, msgspec.structs.replace(found, classes=["circle", "cube", "star"]))
    with pytest.raises(BadArgument, match="class 1 is 'cube' against 'square'"):
        make(ref=datahub.mix({"tiny": 0.5, "renamed": 0.5}))


def test_images_of_several_sizes_come_as_lists(make, home):
    tiny_variant(home.home, "wide", splits={"train": 20}, size=(16, 8))
    loader = make(ref=datahub.mix({"tiny": 0.5, "wide": 0.5}))
    shapes = [tuple(image.shape) for batch in loader for image in batch["image"]]
    assert set(shapes) == {(3, 10, 12), (3, 8, 16)}


def test_a_damaged_sample_of_a_mixture_is_named(make, mixed):
    split = datahub.open("other", mixed)["train"]
    place = split.locate[11]
    damaged(split.shards[int(place["shard"])], int(place["offset"]) + 60, 0xFF)
    loader = make(ref=datahub.mix({"tiny": 0.5, "other": 0.5}))
    with pytest.raises(DamagedSample, match=r"other-train-000000\.tar: sample train-000000011"):
        list(loader)


def test_normalised_by_the_mixture(make, mixed):
    """Mean 0 and deviation 1 over a whole epoch of exact shares."""
    loader = make(ref=datahub.mix({"tiny": 0.5, "other": 0.5}, stop=125), transform="normalize", shuffle=True)
    images = torch.cat([batch["image"] for batch in loader])
    assert images.mean(dim=(0, 2, 3)).abs().max() < 0.02
    assert (images.std(dim=(0, 2, 3)) - 1).abs().max() < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: datahub.mix({"a": 1 / 3, "b": 2 / 3}),
            'multiples of 1/1000 that sum to 1; write {"a": 0.333, "b": 0.667}',
        ),
        (lambda: datahub.mix({"a": 7, "b": 3}), 'write {"a": 0.7, "b": 0.3}'),
        (lambda: datahub.mix({"a": 0.5, "b": 0.4}), "sum to 1"),
        (lambda: datahub.mix({"a": 1.0}), "needs two datasets or more"),
        (lambda: datahub.mix(["a", "b"]), "needs two datasets or more"),
        (lambda: datahub.mix({"a": 1.5, "b": -0.5}), "is no weight for b"),
        (lambda: datahub.mix({"a": float("nan"), "b": 0.5}), "is no weight for a"),
        (lambda: datahub.mix({"a": "x", "b": 0.5}), "is no weight for a"),
        (lambda: datahub.mix({"a": 0.5, "b": 0.5}, stop="never"), '"longest", "shortest" or a number of steps'),
        (lambda: datahub.mix({"a": 0.5, "b": 0.5}, stop=0), "or a number of steps"),
        (lambda: datahub.mix({"a": 0.5, "b": 0.5}, stop=True), "or a number of steps"),
        (lambda: datahub.mix({"a": 0.5, "b": 0.5}, labels="mine"), '"same" or "own"'),
        (lambda: datahub.mix({"a": 0.5, "b:": 0.5}), "is not a split's name"),
        (lambda: datahub.mix({"a": 0.5, 3: 0.5}), "is not a dataset's reference"),
        (lambda: datahub.mix({"a": 1.0, "b": 1e-7}), "less than 1/1000"),
        (lambda: datahub.weighted("a", {}), "names no class"),
        (lambda: datahub.weighted("a", {"x": 0}), "are all 0"),
        (lambda: datahub.weighted("a", {"x": -1}), "is no weight"),
        (lambda: datahub.weighted("a", {1.5: 1}), "is no class"),
        (lambda: datahub.balanced("a", by=""), "is not a column's name"),
        (lambda: datahub.balanced({"a": 1}), "is not a dataset's reference"),
        (lambda: datahub.balanced(datahub.balanced("a")), "is not a dataset's reference"),
    ],
)
def test_what_is_no_mixture_is_refused(call, message):
    with pytest.raises(BadArgument) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ref": {"a": 0.5}}, BadArgument, r"datahub.mix\(\{...\}\)"),
        ({"ref": datahub.mix({"tiny": 0.5, "tiny@1.0": 0.5})}, BadArgument, "is in the mixture twice"),
        ({"ref": datahub.mix({"tiny": 0.5, "absent": 0.5})}, NotInStore, "absent"),
        ({"ref": datahub.mix({"tiny": 0.5, "tiny:val": 0.5})}, UnknownSplit, "has no split 'val'"),
        ({"ref": datahub.balanced("tiny"), "order": datahub.Order(window=4)}, BadArgument, 'window="all"'),
        ({"ref": datahub.balanced("tiny", by="colour")}, BadArgument, "by='colour': is not in the index; it has key"),
        ({"ref": datahub.weighted("tiny", {"sqare": 1})}, BadArgument, "did you mean 'square'"),
        ({"ref": datahub.weighted("tiny", {"square": 1, 1: 2})}, BadArgument, "is named twice"),
        (
            {"ref": datahub.weighted("tiny", {0: 1, 1: 2}), "where": "label == 1"},
            BadArgument,
            "has no samples that where",
        ),
        ({"where": "labell == 1"}, BadArgument, "did you mean label"),
        ({"where": "label == 17"}, BadArgument, "leaves none of the 50 samples"),
        ({"where": datahub}, BadArgument, "is not text"),
        ({"part": (1, 0)}, BadArgument, "is no range"),
        ({"max_samples": 0}, BadArgument, "at least 1"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_cannot_be_opened_is_refused(make, arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


def test_a_bad_reference_in_a_mixture():
    with pytest.raises(BadReference):
        datahub.mix({"tiny": 0.5, "Bad Name": 0.5})


def test_weights_are_exact_where_they_can_be():
    assert whole_shares([Fraction(2), Fraction(1, 2), Fraction(1)], "abc") == (4, 1, 2)
    odd = [Fraction(1, n) for n in (3, 7, 11, 13, 17, 19)]
    shares = whole_shares(odd, "abcdef")
    assert sum(shares) == 10_000
    assert all(abs(share - 10_000 * each / sum(odd)) < 1 for share, each in zip(shares, odd, strict=True))
    with pytest.raises(BadArgument, match="less than 1/10000"):
        whole_shares([Fraction(1), Fraction(1, 10**7)], "ab")
