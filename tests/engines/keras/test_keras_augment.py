"""Augmentation on Keras's arrays, each change beside plain NumPy or by what must hold of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from tenfold.engines.batches import area
from tenfold.engines.draws import Draws, draw
from tenfold.recipe import Augment

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
MEAN = np.array([100.0, 110.0, 120.0], np.float32)


def changed(settings: Augment, draws: Draws, size: int | None = None) -> np.ndarray:
    import keras

    from tenfold.engines.keras.augment import augment

    fields = {f.name: getattr(draws, f.name) for f in dataclasses.fields(draws)}
    given: dict[str, Any] = {n: keras.ops.convert_to_tensor(a) for n, a in fields.items() if a is not None}
    found = augment(keras.ops.convert_to_tensor(IMAGES), given, settings, keras.ops.convert_to_tensor(MEAN), size)
    return np.asarray(keras.ops.convert_to_numpy(found))


def drawn(settings: Augment) -> Draws:
    return draw(settings, len(IMAGES), 8, 10, seed=1, step=2)


def test_nothing_asked_for_changes_nothing() -> None:
    assert np.array_equal(changed(Augment(), drawn(Augment())), IMAGES.astype(np.float32))


@pytest.mark.parametrize("fill", ["reflect", "zero"])
def test_rows_and_columns_come_from_where_the_draws_say(fill: Any) -> None:
    settings = Augment(flip="random", translate=3, translate_fill=fill)
    draws = drawn(settings)
    assert draws.rows is not None and draws.columns is not None
    wanted = np.stack(
        [image[rows][:, columns] for image, rows, columns in zip(IMAGES, draws.rows, draws.columns, strict=True)]
    )
    outside = (draws.rows < 0)[:, :, None] | (draws.columns < 0)[:, None, :]
    assert outside.any() == (fill == "zero")
    assert np.array_equal(changed(settings, draws), np.where(outside[..., None], 0, wanted))


def test_a_turn_by_nothing_leaves_the_picture_and_by_half_reverses_it() -> None:
    for angle, wanted in ((0.0, IMAGES), (math.pi, IMAGES[:, ::-1, ::-1])):
        found = changed(Augment(rotate=180), Draws(angle=np.full(6, angle, np.float32)))
        assert np.abs(found - wanted).max() < 0.05


def test_a_quarter_turn_goes_from_the_x_axis_downwards() -> None:
    """As :mod:`tenfold.engines.draws` has it: what lay right of the centre lies below it."""
    import keras

    from tenfold.engines.keras.augment import augment

    image = np.zeros((1, 9, 9, 3), np.uint8)
    image[0, 4, 8] = 200
    found = keras.ops.convert_to_numpy(
        augment(
            keras.ops.convert_to_tensor(image),
            {"angle": keras.ops.convert_to_tensor(np.array([math.pi / 2], np.float32))},
            Augment(rotate=90),
            keras.ops.convert_to_tensor(MEAN),
            None,
        )
    )
    assert found[0, 8, 4, 0] == pytest.approx(200, abs=0.1)
    assert np.abs(found).sum() == pytest.approx(600, abs=1)


def test_turned_pictures_are_those_of_grid_sample() -> None:
    torch = pytest.importorskip("torch", reason="needs tenfold[torch]")
    import torch.nn.functional as F

    angle = RNG.uniform(-2, 2, 6).astype(np.float32)
    turn = torch.from_numpy(-angle)  # PyTorch's grid says where a pixel comes from
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros(6)
    aspect = 8 / 10
    theta = torch.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero], 1).view(-1, 2, 3)
    pictures = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta, [6, 3, 8, 10], align_corners=False)
    wanted = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False).permute(0, 2, 3, 1).numpy()
    assert np.abs(changed(Augment(rotate=120), Draws(angle=angle)) - wanted).max() < 0.1


def test_colours_are_brightness_then_contrast_then_saturation() -> None:
    draws = drawn(Augment(color_jitter=0.4))
    assert draws.color is not None
    brightness, contrast, saturation = draws.color.reshape(3, -1, 1, 1, 1).astype(np.float64)
    luma = np.array([0.299, 0.587, 0.114])
    x = IMAGES * brightness
    mean = (x * luma).sum(3, keepdims=True).mean((1, 2), keepdims=True)
    x = mean + (x - mean) * contrast
    gray = (x * luma).sum(3, keepdims=True)
    wanted = np.clip(gray + (x - gray) * saturation, 0, 255)
    assert np.abs(changed(Augment(color_jitter=0.4), draws) - wanted).max() < 0.01


def test_cutout_leaves_the_mean_colour_in_its_square() -> None:
    draws = drawn(Augment(cutout=3))
    assert draws.cutout is not None
    wanted = IMAGES.astype(np.float32)
    for image, top, left in zip(wanted, *draws.cutout, strict=True):
        image[top : top + 3, left : left + 3] = MEAN
    assert np.array_equal(changed(Augment(cutout=3), draws), wanted)


def test_mixup_and_cutmix_take_the_share_of_the_other_picture() -> None:
    draws = drawn(Augment(mixup=0.5))
    assert draws.share is not None and draws.other is not None
    wanted = IMAGES * float(draws.share) + IMAGES[draws.other] * (1 - float(draws.share))
    assert np.abs(changed(Augment(mixup=0.5), draws) - wanted).max() < 0.01
    draws = drawn(Augment(cutmix=1.0))
    assert draws.box is not None and draws.other is not None
    top, left, rows, columns = draws.box
    wanted = IMAGES.astype(np.float32)
    wanted[:, top : top + rows, left : left + columns] = IMAGES[draws.other, top : top + rows, left : left + columns]
    assert np.array_equal(changed(Augment(cutmix=1.0), draws), wanted)


def test_smaller_pictures_average_areas() -> None:
    wanted = np.einsum("oh,nhwc,pw->nopc", area(8, 4), IMAGES.astype(np.float64), area(10, 5))
    assert np.abs(changed(Augment(), Draws(), size=5) - wanted).max() < 0.01
