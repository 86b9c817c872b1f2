"""Augmentation of a whole batch on the device. What chance decides comes from :mod:`tenfold.engines.draws`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from tenfold.engines.batches import area, shrunk
from tenfold.recipe import Augment

Array = Any

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


def gather(images: Array, rows: Array, columns: Array, black: bool) -> Array:
    """uint8 B×H×W×3 with each row and column taken from where the draws say; -1 is black where there may be such."""
    count, height, width, _ = images.shape
    inside_rows, inside_columns = (ops.maximum(rows, 0), ops.maximum(columns, 0)) if black else (rows, columns)
    first = ops.reshape(ops.arange(count, dtype="int32") * height, (count, 1))
    flat = ops.expand_dims((first + inside_rows) * width, 2) + ops.expand_dims(inside_columns, 1)
    out = ops.take(ops.reshape(images, (-1, 3)), ops.reshape(flat, (-1,)), axis=0)
    out = ops.reshape(out, images.shape)
    if not black:
        return out
    outside = ops.logical_or(ops.expand_dims(rows < 0, 2), ops.expand_dims(columns < 0, 1))
    return ops.where(ops.expand_dims(outside, 3), ops.zeros_like(out), out)


def augment(images: Array, draws: Mapping[str, Array], settings: Augment, mean: Array, size: int | None) -> Array:
    """uint8 B×H×W×3 to float32 on the scale 0 to 255, at a longer side of ``size`` pixels where given.

    draws   the fields of :class:`tenfold.engines.draws.Draws` that are not None
    mean    float32 3, the training images' mean colour, 0 to 255: what cutout leaves
    """
    if "rows" in draws:
        images = gather(images, draws["rows"], draws["columns"], settings.translate_fill == "zero")
    x = ops.cast(images, "float32")
    if "angle" in draws:
        x = _rotate(x, draws["angle"])
    if "color" in draws:
        x = _jitter(x, draws["color"])
    if "cutout" in draws:
        height, width = (min(settings.cutout, d) for d in x.shape[1:3])
        x = ops.where(_inside(x, draws["cutout"][0], draws["cutout"][1], height, width), mean, x)
    if "box" in draws:
        top, left, rows, columns = (draws["box"][i] for i in range(4))
        x = ops.where(_inside(x, top[None], left[None], rows, columns), ops.take(x, draws["other"], axis=0), x)
    elif "other" in draws:
        x = x * draws["share"] + ops.take(x, draws["other"], axis=0) * (1 - draws["share"])
    if size is not None and size < max(x.shape[1:3]):
        x = shrink(x, size)
    return x


def shrink(x: Array, size: int) -> Array:
    """Pictures N×H×W×3 brought to a longer side of ``size`` by averaging areas, as two matrix products."""
    height, width = x.shape[1:3]
    rows, columns = shrunk(height, width, size)
    x = ops.einsum("oh,nhwc->nowc", ops.convert_to_tensor(area(height, rows)), x)
    return ops.einsum("pw,nowc->nopc", ops.convert_to_tensor(area(width, columns)), x)


def _rotate(x: Array, angle: Array) -> Array:
    """Each image turned about its centre, bilinear, reflected at the edges."""
    count, height, width, _ = x.shape
    down, right = (np.arange(d, dtype=np.float32) - (d - 1) / 2 for d in (height, width))
    down, right = ops.convert_to_tensor(down[None, :, None]), ops.convert_to_tensor(right[None, None, :])
    cos, sin = (ops.reshape(f(angle), (count, 1, 1)) for f in (ops.cos, ops.sin))
    rows = _reflect(cos * down - sin * right + (height - 1) / 2, height)
    columns = _reflect(cos * right + sin * down + (width - 1) / 2, width)
    top, left = ops.floor(rows), ops.floor(columns)
    flat = ops.reshape(x, (-1, 3))
    first = ops.reshape(ops.arange(count, dtype="int32") * (height * width), (count, 1, 1))

    def pixels(row: Array, column: Array) -> Array:
        """Those at whole places; one beyond the last is taken there, its weight is 0."""
        row, column = ops.minimum(row, height - 1), ops.minimum(column, width - 1)
        at = first + ops.cast(row, "int32") * width + ops.cast(column, "int32")
        return ops.reshape(ops.take(flat, ops.reshape(at, (-1,)), axis=0), x.shape)

    total = 0.0
    by_row, by_column = rows - top, columns - left
    for row, row_share in ((top, 1 - by_row), (top + 1, by_row)):
        for column, column_share in ((left, 1 - by_column), (left + 1, by_column)):
            total = total + pixels(row, column) * ops.expand_dims(row_share * column_share, 3)
    return total


def _reflect(at: Array, size: int) -> Array:
    """Places outside the picture mirrored about its edge, half a pixel beyond the last centre, as PyTorch's
    ``grid_sample`` does without aligned corners."""
    span = float(size)
    at = ops.mod(ops.abs(at + 0.5), 2 * span)
    return ops.clip(ops.minimum(at, 2 * span - at) - 0.5, 0, size - 1)


def _jitter(x: Array, factors: Array) -> Array:
    """Brightness, contrast and saturation, each by its own factor, in this order."""
    brightness, contrast, saturation = (ops.reshape(factors[i], (-1, 1, 1, 1)) for i in range(3))
    luma = ops.convert_to_tensor(np.array(LUMA, np.float32))
    x = x * brightness
    mean = ops.mean(ops.sum(x * luma, 3, keepdims=True), (1, 2), keepdims=True)
    x = mean + (x - mean) * contrast
    gray = ops.sum(x * luma, 3, keepdims=True)
    return ops.clip(gray + (x - gray) * saturation, 0, 255)


def _inside(x: Array, top: Array, left: Array, height: Any, width: Any) -> Array:
    """bool B×H×W×1 (or 1×H×W×1), true in each image's rectangle."""
    rows = ops.arange(x.shape[1], dtype="int32")[None, :] - top[:, None]
    columns = ops.arange(x.shape[2], dtype="int32")[None, :] - left[:, None]
    in_rows = ops.logical_and(rows >= 0, rows < height)
    in_columns = ops.logical_and(columns >= 0, columns < width)
    return ops.logical_and(in_rows[:, :, None], in_columns[:, None, :])[..., None]
