from __future__ import annotations

import threading

import numpy as np
import pytest

from tenfold.engines.batches import area, class_weights, flip_sides, order, read_ahead, step_seed
from tenfold.engines.schedule import plan
from tenfold.recipe import Recipe


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    assert np.array_equal(order(1, 2, 50), order(1, 2, 50))
    assert not np.array_equal(order(1, 2, 50), order(1, 3, 50))
    assert not np.array_equal(order(1, 2, 50), order(2, 2, 50))
    assert np.array_equal(np.sort(order(1, 2, 50)), np.arange(50))


def test_step_seeds_differ_by_seed_and_step() -> None:
    seeds = {step_seed(seed, step) for seed in range(50) for step in range(200)}
    assert len(seeds) == 50 * 200
    assert all(0 <= s < 2**63 for s in seeds)


def test_sides_are_a_half_of_the_images_and_of_the_seed() -> None:
    assert 450 < flip_sides(0, 1000).sum() < 550
    assert np.array_equal(flip_sides(0, 100), flip_sides(0, 100))
    assert not np.array_equal(flip_sides(0, 100), flip_sides(1, 100))


def test_areas_of_a_row_average_its_pixels() -> None:
    assert np.allclose(area(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert np.allclose(area(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    assert np.allclose(area(32, 24).sum(1), 1)


def test_class_weights_are_scikit_learns_and_zero_for_a_class_without_images() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat([0, 1, 2], [5, 10, 25])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert np.allclose(class_weights(np.bincount(labels)), wanted)
    assert class_weights(np.array([4, 0, 4])).tolist() == pytest.approx([2 / 3, 0, 2 / 3])


def test_batches_read_ahead_are_those_of_the_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    steps = plan(Recipe(epochs=2, batch_size=16), len(images))
    read = list(zip(range(2, steps.steps), read_ahead(images, steps, 3, 2, lambda pixels: pixels), strict=False))
    assert [at for _, (at, _) in read] == list(range(2, 6))
    for step, (_, pixels) in read:
        index = order(3, steps.epoch_of(step), 50)[step % 3 * 16 :][:16]
        assert np.array_equal(pixels, images[index])


def test_an_error_while_reading_ahead_reaches_the_reader() -> None:
    images = np.zeros((50, 4, 4, 3), np.uint8)

    def finish(pixels: np.ndarray) -> np.ndarray:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(read_ahead(images, plan(Recipe(batch_size=16), 50), 0, 0, finish))
    assert threading.active_count() < 50
