from __future__ import annotations

import numpy as np
import pytest

from tenfold.engines.draws import Draws, draw, reflect
from tenfold.recipe import Augment

ALL = Augment(flip="random", translate=2, rotate=15, color_jitter=0.2, cutout=4, mixup=0.4)


def arrays(found: Draws) -> dict[str, np.ndarray]:
    return {n: np.asarray(v) for n, v in vars(found).items() if v is not None}


def test_draws_are_a_function_of_seed_and_step() -> None:
    a, b = (arrays(draw(ALL, 16, 8, 10, 1, 5)) for _ in range(2))
    assert a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)
    for other in (arrays(draw(ALL, 16, 8, 10, 1, 6)), arrays(draw(ALL, 16, 8, 10, 2, 5))):
        assert all(not np.array_equal(a[n], other[n]) for n in a)


def test_nothing_is_drawn_for_nothing() -> None:
    assert arrays(draw(Augment(), 16, 8, 10, 0, 0)) == {}


def test_rows_and_columns_show_the_picture_moved_and_mirrored() -> None:
    found = draw(Augment(translate=2), 200, 8, 10, 0, 0)
    picture = np.arange(80).reshape(8, 10)
    padded = np.pad(picture, 2, mode="reflect")
    windows = [padded[i : i + 8, j : j + 10] for i in range(5) for j in range(5)]
    seen = set()
    for rows, columns in zip(found.rows, found.columns, strict=True):
        seen.add(next(k for k, w in enumerate(windows) if np.array_equal(picture[rows][:, columns], w)))
    assert seen == set(range(25))
    mirrored = draw(Augment(flip="alternating"), 2, 8, 10, 0, 0, np.array([True, False]))
    assert np.array_equal(mirrored.columns[0], np.arange(10)[::-1])
    assert np.array_equal(mirrored.columns[1], np.arange(10))


def test_black_comes_in_at_the_edge_where_asked_for() -> None:
    found = draw(Augment(translate=3, translate_fill="zero"), 100, 8, 10, 0, 0)
    for rows in found.rows:
        inside = rows[rows >= 0]
        assert np.array_equal(inside, np.arange(inside[0], inside[0] + len(inside)))
        assert 5 <= len(inside) <= 8
    assert (found.rows == -1).any() and (found.columns == -1).any()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_reflect_is_numpys(size: int) -> None:
    wanted = np.pad(np.arange(size), 7, mode="reflect") if size > 1 else np.zeros(15)
    assert np.array_equal(reflect(np.arange(-7, size + 7), size), wanted)


def test_ranges() -> None:
    found = draw(ALL, 2000, 8, 10, 0, 0)
    assert np.abs(found.angle).max() <= np.radians(15) and np.abs(found.angle).max() > np.radians(14)
    assert 0.8 <= found.color.min() < 0.81 and 1.19 < found.color.max() <= 1.2
    assert (found.cutout.min(1).tolist(), found.cutout.max(1).tolist()) == ([0, 0], [4, 6])
    assert 0 <= found.share <= 1 and np.array_equal(np.sort(found.other), np.arange(2000))


def test_a_square_larger_than_the_picture_covers_it() -> None:
    assert not draw(Augment(cutout=99), 5, 8, 10, 0, 0).cutout.any()


def test_a_cutmix_box_lies_in_the_picture_and_takes_its_share() -> None:
    for step in range(100):
        found = draw(Augment(cutmix=1.0), 4, 8, 10, 0, step)
        top, left, rows, columns = found.box.tolist()
        assert top >= 0 and left >= 0 and top + rows <= 8 and left + columns <= 10
        assert found.share == pytest.approx(1 - rows * columns / 80)
