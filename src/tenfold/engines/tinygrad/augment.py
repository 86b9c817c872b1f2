"""Augmentation: all that chance decides comes from :mod:`tenfold.engines.draws`.

Mirroring, shifting and turning look pixels up, which is slow on a device through tinygrad and fast in NumPy: it is done
there, by the thread that reads ahead. What computes on pixels is done on the device.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tinygrad import Tensor, dtypes

from tenfold.engines.batches import area, shrunk
from tenfold.engines.draws import Draws
from tenfold.recipe import Augment

# ---- in NumPy --------------------------------------------------------------------------------------------------------


def moved(pixels: np.ndarray, drawn: Draws) -> np.ndarray:
    """uint8 B×H×W×3 mirrored and shifted; where pictures are turned too, float32 of the same shape."""
    if drawn.rows is not None and drawn.columns is not None:
        pixels = _looked_up(pixels, drawn.rows, drawn.columns)
    return pixels if drawn.angle is None else _turned(pixels, drawn.angle)


def _looked_up(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each row and column of the result is one of the picture, or black where it is -1."""
    count, height, width, _ = pixels.shape
    whole = np.ascontiguousarray(pixels).reshape(-1, 3).view("V3").ravel()  # a pixel is one item
    at = (np.arange(count)[:, None] * height + np.maximum(rows, 0))[:, :, None] * width
    out = whole[at + np.maximum(columns, 0)[:, None, :]].view(np.uint8).reshape(pixels.shape)
    if (rows < 0).any() or (columns < 0).any():
        out[(rows < 0)[:, :, None] | (columns < 0)[:, None, :]] = 0
    return out


def _turned(pixels: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Each picture turned about its centre, bilinear, reflected at the edges: float32. A positive angle turns the
    content from the x axis towards the y axis, which points down."""
    count, height, width, _ = pixels.shape
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[None, :, None]
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, None, :]
    cos, sin = (f(angle.astype(np.float32))[:, None, None] for f in (np.cos, np.sin))
    columns = _reflected(cos * x + sin * y + (width - 1) / 2, width)
    rows = _reflected(cos * y - sin * x + (height - 1) / 2, height)
    which = np.arange(count)[:, None, None]
    top, left = (np.clip(np.floor(at).astype(np.int64), 0, size - 1) for at, size in ((rows, height), (columns, width)))
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    upper = pixels[which, top, left] * (1 - right) + pixels[which, top, beside] * right
    lower = pixels[which, below, left] * (1 - right) + pixels[which, below, beside] * right
    return (upper * (1 - down) + lower * down).astype(np.float32)


def _reflected(at: np.ndarray, size: int) -> np.ndarray:
    """Positions mirrored about the outer borders of the edge pixels, half a pixel beyond their centres."""
    at = np.abs((at + 0.5) % (2 * size))
    return np.clip(np.minimum(at, 2 * size - at) - 0.5, 0, size - 1)


# ---- on the device ---------------------------------------------------------------------------------------------------


def augment(inputs: Mapping[str, Tensor], settings: Augment, mean: Tensor, size: int | None) -> Tensor:
    """float32 B×3×H×W on the scale 0 to 255, at ``size`` pixels where given.

    inputs   ``pixels`` B×H×W×3 and what :func:`tenfold.engines.tinygrad.feed.Feed.take` gives beside them. ``mixed``
             are the pictures that each is mixed with, with draws of their own
    mean     the training images' mean colour, 0 to 255: what cutout leaves
    """
    x = _computed(inputs, "", settings, mean)
    if settings.mixup or settings.cutmix:
        other = _computed(inputs, "mixed_", settings, mean)
        if settings.mixup:
            share = inputs["share"].reshape(1, 1, 1, 1)
            x = x * share + other * (1 - share)
        else:
            top, left, height, width = (inputs["box"][i].reshape(1) for i in range(4))
            x = _inside(x, top, left, height, width).where(other, x)
    if size is not None and size < max(x.shape[2:]):
        x = shrink(x, size)
    return x


def _computed(inputs: Mapping[str, Tensor], prefix: str, settings: Augment, mean: Tensor) -> Tensor:
    x = inputs[prefix + "pixels"].permute(0, 3, 1, 2).cast(dtypes.float32)
    if settings.color_jitter:
        x = _jitter(x, inputs[prefix + "color"])
    if settings.cutout:
        side = [min(settings.cutout, int(d)) for d in x.shape[2:]]
        top, left = (inputs[prefix + "cutout"][i] for i in range(2))
        x = _inside(x, top, left, *side).where(mean.reshape(1, 3, 1, 1), x)
    return x


def _jitter(x: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation, each by its own factor, in this order."""
    brightness, contrast, saturation = (factors[i].reshape(-1, 1, 1, 1) for i in range(3))
    x = x * brightness
    mean = _gray(x).mean((2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    gray = _gray(x)
    return (gray + (x - gray) * saturation).clip(0, 255)


def _gray(x: Tensor) -> Tensor:
    """Red, green and blue weighed as ITU-R BT.601 does: B×1×H×W."""
    return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def _inside(x: Tensor, top: Tensor, left: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """bool N×1×H×W, true in each picture's rectangle."""
    rows = Tensor.arange(int(x.shape[2])).reshape(1, -1) - top.reshape(-1, 1)
    columns = Tensor.arange(int(x.shape[3])).reshape(1, -1) - left.reshape(-1, 1)
    in_rows = (rows >= 0) * (rows < height)
    in_columns = (columns >= 0) * (columns < width)
    return in_rows.reshape(-1, 1, int(x.shape[2]), 1) * in_columns.reshape(-1, 1, 1, int(x.shape[3]))


def shrink(x: Tensor, size: int) -> Tensor:
    """Pictures N×3×H×W brought to a longer side of ``size`` by averaging areas, as two matrix products."""
    height, width = (int(d) for d in x.shape[2:])
    after = shrunk(height, width, size)
    rows, columns = (Tensor(area(a, b), device=x.device) for a, b in zip((height, width), after, strict=True))
    return (rows @ x) @ columns.transpose()
