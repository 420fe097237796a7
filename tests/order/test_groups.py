"""Which world sizes leave the groups of a global batch whole: held to the owner of each slot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.core.errors import BadArgument
from datahub.order import rank_of
from datahub.order.groups import cut_groups, largest_group


def split_groups(batch: int, world_size: int, group: int) -> list[int]:
    """Ranks that own a slot of a group whose first slot is another rank's."""
    owner = rank_of(np.arange(batch), batch, world_size)
    first = owner[np.arange(batch) // group * group]
    return owner[owner != first].tolist()


@st.composite
def jobs(draw) -> tuple[int, int, int]:
    batch = draw(st.integers(1, 200))
    return batch, draw(st.integers(1, batch)), draw(st.integers(1, 1 + batch))


@settings(max_examples=300, deadline=None)
@given(job=jobs())
def test_the_first_rank_that_cuts_a_group_is_named(job):
    split = split_groups(*job)
    assert cut_groups(*job) == (min(split) if split else None)


@settings(max_examples=200, deadline=None)
@given(batch=st.integers(2, 200), data=st.data())
def test_the_largest_group_is_whole_and_so_are_its_divisors_alone(batch, data):
    world_size = data.draw(st.integers(2, batch))
    largest = largest_group(batch, world_size)
    whole = [group for group in range(1, batch + 1) if cut_groups(batch, world_size, group) is None]
    assert whole == [group for group in range(1, batch + 1) if largest % group == 0]


@pytest.mark.parametrize(
    ("batch", "world_size", "group", "cut"),
    [
        (1024, 8, 128, None),
        (1024, 3, 2, 1),
        (1024, 3, 341, None),
        (1023, 4, 255, 2),
        (96, 4, 16, 1),
        (96, 6, 16, None),
        (100, 1, 64, None),
    ],
)
def test_by_hand(batch, world_size, group, cut):
    assert cut_groups(batch, world_size, group) == cut


def test_one_rank_cuts_nothing():
    assert cut_groups(10, 1, 3) is None and largest_group(10, 1) == 10


def test_no_group_is_refused():
    with pytest.raises(BadArgument, match="mix_group=0"):
        cut_groups(8, 2, 0)
