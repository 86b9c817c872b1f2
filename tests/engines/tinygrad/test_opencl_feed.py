"""What is made ready on the host: moved pictures and targets. NumPy alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("tinygrad")

from tenfold import recipe as recipes
from tenfold.data.dataset import Split
from tenfold.engines.draws import Draws, draw
from tenfold.engines.schedule import plan
from tenfold.engines.tinygrad.augment import moved
from tenfold.engines.tinygrad.feed import Feed
from tenfold.recipe import Recipe

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def split(count: int = 12) -> Split:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    return Split(images, np.arange(count, dtype=np.int64) % 3, [str(i) for i in range(count)])


@pytest.mark.parametrize("fill", ["reflect", "zero"])
def test_each_pixel_comes_from_where_the_draws_say(fill: str) -> None:
    drawn = draw(recipes.Augment(flip="random", translate=2, translate_fill=fill), 6, 5, 7, 3, 4)  # type: ignore[arg-type]
    assert drawn.rows is not None
    assert drawn.columns is not None
    out = moved(PIXELS, drawn)
    assert out.dtype == np.uint8
    assert fill == "reflect" or (drawn.rows < 0).any()
    for b, i, j in np.ndindex(6, 5, 7):
        row, column = drawn.rows[b, i], drawn.columns[b, j]
        assert (out[b, i, j] == (0 if min(row, column) < 0 else PIXELS[b, row, column])).all()


def test_a_quarter_turn_is_exact() -> None:
    square = PIXELS[:2, :5, :5]
    angle = np.full(2, math.pi / 2, np.float32)
    turned = moved(square, Draws(angle=angle))
    assert np.abs(turned - np.rot90(square, -1, (1, 2))).max() < 1e-2  # towards the y axis, which points down
    assert np.abs(moved(PIXELS, Draws(angle=np.zeros(6, np.float32))) - PIXELS).max() == 0


def test_a_small_turn_mixes_neighbours_and_mirrors_the_edge() -> None:
    flat = np.full((1, 6, 6, 3), 77, np.uint8)
    assert np.abs(moved(flat, Draws(angle=np.array([0.7], np.float32))) - 77).max() < 1e-3


def test_targets_are_cross_entropy_with_weights_and_smoothing() -> None:
    recipe = Recipe(batch_size=6, label_smoothing=0.1, class_weights="balanced", precision="fp32")
    few = Split(split().images, np.array([0] * 7 + [1] * 4 + [2]), [str(i) for i in range(12)])
    feed = Feed(few, plan(recipe, 12), recipe, 3)
    labels = np.array([0, 2, 1, 0, 0, 1])
    logp = np.log(np.random.default_rng(0).dirichlet([1, 1, 1], 6))
    w = feed.weights
    assert w[2] > w[1] > w[0]
    own = -logp[np.arange(6), labels] * w[labels]
    spread = -(logp * w).sum(1) / 3
    wanted = (0.9 * own + 0.1 * spread).sum() / w[labels].sum()  # as PyTorch's cross_entropy
    assert -(feed._targets(labels) * logp).sum() == pytest.approx(wanted, rel=1e-5)


def test_what_a_picture_is_mixed_with_goes_with_its_draws_and_label() -> None:
    recipe = Recipe(batch_size=6, augment=recipes.Augment(mixup=0.5, cutout=2, color_jitter=0.2))
    feed = Feed(split(), plan(recipe, 12), recipe, 3)
    batch = feed.take(0)
    feed.close()
    drawn = draw(recipe.augment, 6, 5, 7, recipe.seed, 0)
    assert drawn.other is not None
    assert (batch["mixed_pixels"] == batch["pixels"][drawn.other]).all()
    assert (batch["mixed_cutout"] == drawn.cutout[:, drawn.other]).all()  # type: ignore[index]
    assert (batch["mixed_color"] == drawn.color[:, drawn.other]).all()  # type: ignore[index]
    one_hot = np.eye(3)[batch["labels"]]
    wanted = drawn.share * one_hot + (1 - drawn.share) * one_hot[drawn.other]  # type: ignore[operator]
    assert np.allclose(batch["targets"], wanted / 6, atol=1e-6)


def test_a_batch_is_a_function_of_its_step() -> None:
    recipe = Recipe(batch_size=4, augment=recipes.Augment(flip="alternating", translate=1), epochs=5)
    whole = Feed(split(), plan(recipe, 12), recipe, 3)
    batches = [whole.take(step) for step in range(6)]
    whole.close()
    late = Feed(split(), plan(recipe, 12), recipe, 3)
    again = late.take(5)
    late.close()
    assert all(np.array_equal(again[name], batches[5][name]) for name in again)
