"""Draws are a formula: frozen, independent of how rows are grouped, and uniform."""

from __future__ import annotations

import numpy as np

from datahub.tensor.draws import Draws


def test_golden_vectors() -> None:
    draws = Draws(7, 3, np.array([0, 1, 1_281_166], np.int64))
    assert draws.uniform("x", 2).tolist() == [
        [0.8473470824431228, 0.5412887535095339],
        [0.6722047683657552, 0.19461052423958702],
        [0.09869890863034458, 0.9789004889111771],
    ]
    assert draws.integers("x", 1000)[:, 0].tolist() == [847, 541, 601]


def test_rows_keep_their_draws_however_they_are_grouped() -> None:
    whole = Draws(1, 2, np.arange(512, dtype=np.int64))
    rows = np.array([511, 3, 64])
    assert np.array_equal(whole.take(rows).uniform("flip", 4), whole.uniform("flip", 4)[rows])
    assert np.array_equal(whole.take(slice(10, 20)).integers("top", 9), whole.integers("top", 9)[10:20])


def test_names_seeds_and_epochs_are_streams_of_their_own() -> None:
    at = np.arange(4096, dtype=np.int64)
    streams = [Draws(s, e, at).uniform(n)[:, 0] for s, e, n in ((0, 0, "a"), (0, 0, "b"), (0, 1, "a"), (1, 0, "a"))]
    correlation = np.corrcoef(streams)
    assert np.abs(correlation - np.eye(4)).max() < 0.06


def test_draws_are_uniform_and_serially_uncorrelated() -> None:
    found = Draws(5, 0, np.arange(200_000, dtype=np.int64)).uniform("x", 2)
    assert found.min() >= 0 and found.max() < 1
    counts = np.histogram(found, 100, (0, 1))[0]
    assert ((counts - 4000) ** 2 / 4000).sum() < 160  # chi-squared, 99 degrees of freedom: p < 1e-4
    flat = found.ravel()
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.01


def test_integers_cover_their_range_and_may_have_a_bound_a_row() -> None:
    draws = Draws(0, 0, np.arange(1000, dtype=np.int64))
    assert set(draws.integers("x", 9).ravel().tolist()) == set(range(9))
    bound = np.arange(1, 1001)[:, None]
    assert (draws.integers("y", bound) < bound).all()
