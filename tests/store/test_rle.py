from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from datahub.store import rle

shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))
masks = shapes.flatmap(
    lambda shape: st.one_of(
        arrays.arrays(np.uint8, shape, elements=st.integers(0, 1)),
        arrays.arrays(np.uint8, shape, elements=st.integers(0, 1), fill=st.just(0)),
    )
)


@settings(max_examples=80, deadline=None)
@given(masks)
def test_the_text_is_that_of_pycocotools_and_comes_back(found: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    ours = rle.encode(found)
    theirs = [coco.encode(np.asfortranarray(mask)) for mask in found]
    assert [each["counts"] for each in ours] == [each["counts"].decode() for each in theirs]
    assert np.array_equal(rle.decode(ours, found.shape[1:]), found)


def test_long_runs_and_lists_of_counts_are_read() -> None:
    mask = np.zeros((1, 3000, 4000), np.uint8)
    mask[0, :, 1:3999] = 1
    (found,) = rle.encode(mask)
    assert np.array_equal(rle.decode([found], (3000, 4000)), mask)
    listed = {"size": [3000, 4000], "counts": rle.runs(mask[0]).tolist()}
    assert rle.text_of(listed, (3000, 4000), "mask 0") == found
    assert rle.decode([], (5, 7)).shape == (0, 5, 7)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([6], "do not add up to its 12 pixels"),
        ([13, -1], "do not add up"),
        ([2**62, 2**62, 12], "do not add up"),
        ("", "do not add up"),
        ("o", "cannot be read"),
        ("\x10\x10", "cannot be read"),
        ("oooooooo0", "cannot be read"),
        ("\u20ac", "cannot be read"),
        (["a"], "cannot be read"),
        ({"a": 1}, "cannot be read"),
    ],
)
def test_counts_that_lie_are_refused_before_memory_is_taken(counts: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rle.decode([{"size": [3, 4], "counts": counts}], (3, 4))


@pytest.mark.parametrize("mask", [None, [], {"size": [3, 4]}, {"counts": [12]}])
def test_what_is_no_encoding_is_refused(mask: Any) -> None:
    with pytest.raises(ValueError, match="mask 0 is no run-length encoding"):
        rle.decode([mask], (3, 4))


def test_masks_of_another_size_and_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="mask 0 is 4 x 3, the image 3 x 4"):
        rle.decode([{"size": [4, 3], "counts": [12]}], (3, 4))
    with pytest.raises(ValueError, match="more than"):
        rle.decode([{"size": [30000, 30000], "counts": [9 * 10**8]}] * 2, (30000, 30000))
