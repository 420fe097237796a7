"""Every argument is honoured or refused with a line that says what to do."""

from __future__ import annotations

import pytest
import torch

from datahub import transforms
from datahub.core.errors import BadArgument, NotInStore, UnknownSplit
from datahub.loader.streaming import StreamingLoader
from datahub.pack import fetch as fetching


@pytest.mark.parametrize(
    "argument",
    [
        {"batch_size": None},
        {"workers": "fibre"},
        {"batch_size": 4, "global_batch_size": 8},
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"batch_size": True},
        {"seed": "x"},
        {"prefetch": 0},
        {"residency": "gpu"},
        {"num_workers": -1},
        {"timeout": 0},
        {"order": "all"},
        {"fields": "image"},
        {"fields": ("image", "labels")},
        {"fields": ()},
        {"fields": ("n_global",)},
        {"transform": "mnits"},
        {"transform": 3},
        {"transform": transforms.RandomHorizontalFlip},
        {"transform": transforms.MixUp},
        {"transform": torch.nn.Flatten},
        {"collate": 3},
        {"batch_transform": "x"},
        {"dtype": torch.float16},
        {"transform": "normalize", "dtype": torch.int32},
        {"on_error": "ignore"},
        {"on_error": "quarantine", "fields": ("image", "label")},
        {"on_error": "quarantine", "fields": ("encoded", "label")},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(make, argument):
    with pytest.raises(BadArgument):
        make(**argument)


def test_a_transform_that_returns_nothing_is_named(make):
    def forgot(image):
        image.float()

    for resident in ("stream", "host"):
        with pytest.raises(BadArgument, match="transform='forgot': returned nothing for sample train-0"):
            list(make(transform=forgot, residency=resident))
    assert isinstance(next(iter(make(transform=dict.fromkeys)))["image"], list)  # another class is a callable


def test_what_a_default_stands_for_can_be_written_out(make):
    written = make(device=torch.device("cpu"), part=[0, 1], residency="stream", workers="thread")
    assert [batch["label"].tolist() for batch in written] == [batch["label"].tolist() for batch in make()]


def test_unknown_split(make):
    with pytest.raises(UnknownSplit, match="has no split 'val'; it has test, train"):
        make("val")


def test_nothing_packed(home):
    with pytest.raises(NotInStore, match="run `datahub fetch mnist`"):
        StreamingLoader("mnist", batch_size=4, settings=home)


def test_download_fetches_what_is_missing(home, monkeypatch):
    asked = []

    def fetch(ref, settings):
        asked.append((str(ref), settings))
        from tests.store.builder import tiny_variant

        tiny_variant(settings.home, "absent")
        return fetching.Fetched(ref, home.home, fresh=True)

    monkeypatch.setattr(fetching, "fetch", fetch)
    with StreamingLoader("absent", batch_size=4, settings=home, download=True) as loader:
        assert len(loader) == 5
    StreamingLoader("absent", batch_size=4, settings=home, download=True).close()
    assert asked == [("absent", home)]


def test_stats_and_explain(make):
    loader = make(shuffle=True)
    assert "tiny@1.0/published train: 50 samples in 3 shards on this disk" in loader.explain()
    assert "so far" not in loader.explain()
    list(loader)
    stats = loader.stats()
    assert (stats["samples"], stats["batches"]) == (50, 7) and stats["bytes"] == int(loader.split.locate["size"].sum())
    assert stats["decode_seconds"] > 0 and stats["wait_seconds"] > 0
    assert "so far: 50 samples" in loader.explain() and "shuffled by seed 0" in loader.explain()
