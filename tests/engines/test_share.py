from __future__ import annotations

import numpy as np
import pytest

from tenfold.engines.schedule import Plan
from tenfold.engines.share import edges, share
from tenfold.errors import RecipeError


@pytest.mark.parametrize(("batch", "parts", "size"), [(64, 1, 4), (61, 1, 3), (500, 4, 2), (503, 4, 4), (61, 2, 6)])
def test_shares_are_all_of_the_batch_once_and_nearly_even(batch: int, parts: int, size: int) -> None:
    found = [share(Plan(1, 1, batch, parts), rank, size) for rank in range(size)]
    assert [row for one in found for row in one.rows] == list(range(batch))
    assert sorted({part for one in found for part in one.parts}) == list(range(parts))
    sizes = [len(one.rows) for one in found]
    assert max(sizes) - min(sizes) <= max(2, parts // size)


def test_a_part_is_whole_or_is_shared_with_mates() -> None:
    whole = share(Plan(1, 1, 500, 4), 1, 2)
    assert (whole.parts, whole.within, whole.mates) == (range(2, 4), None, range(1, 2))
    shared = share(Plan(1, 1, 80, 2), 2, 4)
    assert (shared.parts, shared.rows) == (range(1, 2), range(40, 60))
    assert (shared.within, shared.mates) == (range(20), range(2, 4))


def test_parts_that_would_be_cut_and_batches_too_small_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"4 parts .* 3 processes"):
        share(Plan(1, 1, 500, 4), 0, 3)
    with pytest.raises(RecipeError, match="3 images"):
        share(Plan(1, 1, 3, 1), 0, 4)


def test_edges_are_those_of_numpy() -> None:
    for count, number in ((10, 3), (7, 7), (503, 4)):
        starts = [len(part) for part in np.array_split(np.arange(count), number)]
        assert np.diff(edges(count, number)).tolist() == starts
