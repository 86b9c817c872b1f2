"""What chance decides for the pictures of a step, drawn in NumPy: a function of (seed, step) alone.

An engine that takes its augmentation from here shows the same pictures as every other that does, on any device, and a
resumed run the same as an unbroken one. (PyTorch's engine draws on the device instead: a CUDA graph can't wait for the
host, and a CPU draws for each part of a batch in a thread of its own. The rules are the same, the numbers others.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tenfold.engines.batches import step_seed
from tenfold.recipe import Augment


@dataclass(frozen=True)
class Draws:
    """For B pictures of H×W; what the settings don't ask for is None.

    rows, columns   int32 B×H and B×W: the source row and column of each row and column of the new picture, by flip and
                    translation, reflected at the edge; -1 is black (``translate_fill: zero``). None: as they are
    angle           float32 B, radians, positive turns the content from the x axis towards the y axis (downwards)
    color           float32 3×B: factors of brightness, contrast and saturation
    cutout          int32 2×B: top and left of each square
    share, other    the loss is ``share`` of that for a picture's own label and the rest of that for the label of
                    picture ``other`` (int32 B) of the batch; both None where nothing is mixed
    box             int32 4 for cutmix: top, left, height, width, of what comes from the other picture; else None
    """

    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    angle: np.ndarray | None = None
    color: np.ndarray | None = None
    cutout: np.ndarray | None = None
    share: np.ndarray | None = None
    other: np.ndarray | None = None
    box: np.ndarray | None = None


def draw(
    settings: Augment, count: int, height: int, width: int, seed: int, step: int, sides: np.ndarray | None = None
) -> Draws:
    """The draws of step ``step``. ``sides``: bool B, the pictures that ``flip: alternating`` mirrors in this epoch."""
    rng = np.random.default_rng(step_seed(seed, step))
    flip = rng.random(count) < 0.5 if settings.flip == "random" else sides
    rows, columns = _sources(settings, flip, count, height, width, rng)
    angle = color = cutout = None
    if settings.rotate:
        angle = (rng.uniform(-1, 1, count) * math.radians(settings.rotate)).astype(np.float32)
    if settings.color_jitter:
        color = (1 + rng.uniform(-1, 1, (3, count)) * settings.color_jitter).astype(np.float32)
    if settings.cutout:
        spare = [d - min(settings.cutout, d) + 1 for d in (height, width)]
        cutout = np.stack([rng.integers(0, s, count, dtype=np.int32) for s in spare])
    if settings.mixup:
        share = np.array(rng.beta(settings.mixup, settings.mixup), np.float32)
        return Draws(rows, columns, angle, color, cutout, share, _order(rng, count))
    if settings.cutmix:
        box = _box(rng, settings.cutmix, height, width)
        share = np.array(1 - box[2] * box[3] / (height * width), np.float32)
        return Draws(rows, columns, angle, color, cutout, share, _order(rng, count), box)
    return Draws(rows, columns, angle, color, cutout)


def _sources(
    settings: Augment, flip: np.ndarray | None, count: int, height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray | None, np.ndarray | None]:
    shift = settings.translate
    if flip is None and not shift:
        return None, None
    rows = np.broadcast_to(np.arange(height), (count, height))
    columns = np.broadcast_to(np.arange(width), (count, width))
    if flip is not None:
        columns = np.where(flip[:, None], width - 1 - columns, columns)
    if shift:
        rows = rows + rng.integers(-shift, shift + 1, (count, 1))
        columns = columns + rng.integers(-shift, shift + 1, (count, 1))
    found = []
    for at, size in ((rows, height), (columns, width)):
        inside = reflect(at, size)
        if settings.translate_fill == "zero":
            inside = np.where((at < 0) | (at >= size), -1, inside)
        found.append(inside.astype(np.int32))
    return found[0], found[1]


def reflect(at: np.ndarray, size: int) -> np.ndarray:
    """Positions outside 0 to size-1 mirrored about the edge pixel, as NumPy's ``reflect`` padding does."""
    if size == 1:
        return np.zeros_like(at)
    at = np.abs(at) % (2 * size - 2)
    return np.minimum(at, 2 * size - 2 - at)


def _order(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.permutation(count).astype(np.int32)


def _box(rng: np.random.Generator, alpha: float, height: int, width: int) -> np.ndarray:
    """One rectangle for the batch, wholly inside the picture (Yun et al. 2019, "CutMix")."""
    side = math.sqrt(1 - rng.beta(alpha, alpha))
    rows, columns = round(side * height), round(side * width)
    top, left = (int(rng.integers(0, spare + 1)) for spare in (height - rows, width - columns))
    return np.array([top, left, rows, columns], np.int32)
