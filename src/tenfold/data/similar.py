"""Near duplicates: the same shot again, whatever was done to its colors, its contrast, its size or its edge.

1. Each picture's luminance is brought to 32×32, its band of fine detail taken (a difference of Gaussians), and the
   local contrast divided out (Jarrett et al., "What is the best multi-stage architecture for object recognition?",
   ICCV 2009). What is left survives other colors, brightness, contrast and compression.
2. The same at a coarser scale, sampled at 8×8, is a signature of 64 numbers. Pictures whose signatures are close are
   candidates; they are looked for in an inverted file where each picture lies in its six nearest cells (Jégou,
   Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 2011), so that the work grows with
   N^1.5 and not with N².
3. A candidate is kept where the detail correlates (normalized cross-correlation) at the best shift of up to two of
   the 32 pixels, by far more than random pairs of the same dataset do.

Measured on CIFAR-10 against the 249 near duplicates between test and train that Barz and Denzler annotated ("Do we
train on test data?", J. Imaging 2020): see docs/check.md.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

SIDE = 32
SHIFT = 2  # of the 32 pixels, in each direction
SIGNATURE = 8

CLOSE = 0.70  # cosine of signatures from which a pair is looked at
SAME = 0.72  # correlation of detail from which a pair is reported, or more where chance() says so
SAME_MIRRORED = 0.82  # and of a mirrored pair: symmetric things, ships and planes, are much like their own mirror image
SPREADS = 8
NEIGHBORS = 8  # candidates of each picture at most: a film's frames must not make N² pairs
CELLS_EACH = 6
BRUTE = 3000  # up to so many pictures all are compared with all

_CHUNK = 1024
_FLOOR = 3.0  # gray levels of detail that count as noise
_SCALE = 32.0  # detail is kept as int8 in steps of 1/32

Tell = Callable[[str, int, int, str], None]  # what is done, how much of it, of how much, of what


def _nobody(stage: str, done: int, total: int, unit: str) -> None:
    """The Tell for nobody."""


@dataclass(frozen=True)
class Prints:
    """What pictures are compared by.

    signatures  float32 N×64, of length 1
    mirrored    the same of the mirrored pictures, or None
    detail      int8 N×32×32
    """

    signatures: np.ndarray
    mirrored: np.ndarray | None
    detail: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Near duplicates, the surest first: ``first`` < ``second`` (int64), ``score`` (float32, up to 1), ``mirrored``.

    ``least`` is the score from which pairs were taken.
    """

    first: np.ndarray
    second: np.ndarray
    score: np.ndarray
    mirrored: np.ndarray
    least: float

    def __len__(self) -> int:
        return len(self.first)


def find(
    parts: Sequence[np.ndarray],
    *,
    mirror: bool = True,
    rows: np.ndarray | None = None,
    told: Tell = _nobody,
) -> Pairs:
    """The near duplicates among pictures uint8 N×H×W×3, given in one array or several; they are counted through.

    mirror  also a picture and another's mirror image
    rows    the pictures to compare (int64); all where None
    told    hears of the progress

    Pictures without detail, such as blank ones, are like nothing.
    """
    prints = describe(parts, mirror=mirror, told=told)
    if rows is None:
        return verify(prints, *candidates(prints, told), told)
    mirrored = None if prints.mirrored is None else prints.mirrored[rows]
    prints = Prints(prints.signatures[rows], mirrored, prints.detail[rows])
    found = verify(prints, *candidates(prints, told), told)
    return Pairs(rows[found.first], rows[found.second], found.score, found.mirrored, found.least)


# ---- what pictures are compared by ------------------------------------------------------------------------------


def describe(parts: Sequence[np.ndarray], *, mirror: bool = True, told: Tell = _nobody) -> Prints:
    count = sum(map(len, parts))
    signatures = np.zeros((count, SIGNATURE**2), np.float32)
    mirrored = np.zeros_like(signatures) if mirror else None
    detail = np.zeros((count, SIDE, SIDE), np.int8)
    done = 0
    for images in parts:
        for start in range(0, len(images), _CHUNK):
            block = images[start : start + _CHUNK]
            place = slice(done, done + len(block))
            detail[place], coarse = _described(block)
            signatures[place] = _unit(coarse)
            if mirrored is not None:
                mirrored[place] = _unit(coarse[:, :, ::-1])
            done = place.stop
            told("describe", done, count, "images")
    return Prints(signatures, mirrored, detail)


def _described(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fine detail N×32×32, in steps of 1/_SCALE, and the coarse one N×8×8."""
    rows, columns = (_resampling(n, SIDE) for n in images.shape[1:3])
    half = _resampling(SIDE, SIDE // 2)
    gray = _filtered(_luminance(images), rows, columns)
    fine = _normalized(gray, 0.7, 1.6, 1.75)
    np.clip(np.rint(fine * _SCALE), -127, 127, out=fine)
    return fine.transpose(1, 0, 2), _pooled(_normalized(_filtered(gray, half, half), 0.6, 1.75, 1.75))


def _luminance(images: np.ndarray) -> np.ndarray:
    """float32 H×N×W of uint8 N×H×W×3: with the pictures in the middle, filtering either axis is one product."""
    gray = np.zeros((images.shape[1], len(images), images.shape[2]), np.float32)
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        gray += images[..., channel].transpose(1, 0, 2) * np.float32(weight)
    return gray


def _filtered(values: np.ndarray, rows: np.ndarray | None, columns: np.ndarray | None) -> np.ndarray:
    """H×N×W to h×N×w by the matrices h×H and w×W; None leaves that axis as it is."""
    high, count, wide = values.shape
    if rows is not None:
        values = (rows @ values.reshape(high, count * wide)).reshape(len(rows), count, wide)
    if columns is not None:
        values = (values.reshape(-1, wide) @ columns.T).reshape(len(values), count, len(columns))
    return values


def _resampling(length: int, side: int) -> np.ndarray | None:
    """float32 side×length: area averages where there are more pixels, straight lines between them where fewer."""
    if length == side:
        return None
    edges = np.linspace(0, length, side + 1)
    if length > side:
        cells = np.arange(length)
        overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
        weights = np.clip(overlap, 0, None)
    else:
        centers = np.clip((edges[:-1] + edges[1:]) / 2 - 0.5, 0, length - 1)
        weights = np.clip(1 - np.abs(centers[:, None] - np.arange(length)), 0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


@functools.cache
def _gaussian(side: int, sigma: float) -> np.ndarray:
    """float32 side×side that blurs one axis; at the edges the weights inside are scaled up."""
    apart = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-(apart**2) / (2 * sigma**2))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _normalized(gray: np.ndarray, fine: float, coarse: float, around: float) -> np.ndarray:
    """S×N×S: the band between two Gaussians, divided by its strength around each pixel."""
    side = len(gray)
    small, large = _gaussian(side, fine), _gaussian(side, coarse)
    band = _filtered(gray, small, small)
    band -= _filtered(gray, large, large)
    near = _resampling(side, side // 2)
    assert near is not None
    near = _gaussian(side // 2, around / 2) @ near
    strength = _filtered(band * band, near, near)  # at half the size, where it costs an eighth
    strength += _FLOOR**2
    np.sqrt(strength, out=strength)
    blocks = band.reshape(side // 2, 2, -1, side // 2, 2)
    blocks /= strength[:, None, :, :, None]
    return band


def _pooled(values: np.ndarray) -> np.ndarray:
    """float32 N×8×8 of S×N×S."""
    side = len(values)
    average = _gaussian(side, side / 32).reshape(SIGNATURE, side // SIGNATURE, side).mean(1)
    return _filtered(values, average, average).transpose(1, 0, 2)


def _unit(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 0.3)


# ---- candidates -------------------------------------------------------------------------------------------------


def candidates(prints: Prints, told: Tell = _nobody) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs first < second (int64) whose signatures are close, and whether the second is to be mirrored."""
    straight = _close(prints.signatures, prints.signatures, told)
    found = [(*straight, np.zeros(len(straight[0]), bool))]
    if prints.mirrored is not None:
        turned = _close(prints.signatures, prints.mirrored, told)
        found.append((*turned, np.ones(len(turned[0]), bool)))
    first, second, mirrored = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, mirrored


def _close(signatures: np.ndarray, others: np.ndarray, told: Tell) -> tuple[np.ndarray, np.ndarray]:
    count = len(signatures)
    keys = [np.empty(0, np.int64)]
    near = [np.empty(0, np.float32)]
    cells = list(_cells(signatures, others))
    stage = "search" if others is signatures else "search mirrored"
    for done, (rows, columns) in enumerate(cells, 1):
        a, b, cosine = _close_in_cell(signatures, others, rows, columns)
        keys.append(np.minimum(a, b) * count + np.maximum(a, b))
        near.append(cosine)
        told(stage, done, len(cells), "cells")
    key, where = np.unique(np.concatenate(keys), return_index=True)
    first, second = key // count if count else key, key % count if count else key
    kept = _nearest_of_each(first, second, np.concatenate(near)[where], count)
    return first[kept], second[kept]


def _cells(signatures: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The inverted file: for each cell the members (int64) among ``signatures`` and among ``others``."""
    count = len(signatures)
    if count <= BRUTE:
        everyone = np.arange(count)
        yield everyone, everyone
        return
    cells = int(np.sqrt(count))
    chosen = np.random.default_rng(0).choice(count, cells, replace=False)
    centers = signatures[chosen]
    for _ in range(2):  # Lloyd's rounds, which even the cells out
        home = _nearest_cells(signatures, centers, 1)[:, 0]
        sums = np.stack([np.bincount(home, signatures[:, d], cells) for d in range(signatures.shape[1])], 1)
        centers = np.where(sums.any(1, keepdims=True), sums, centers).astype(np.float32)
        centers /= np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), 1e-6)
    mine = _members(_nearest_cells(signatures, centers, CELLS_EACH), cells)
    theirs = mine if others is signatures else _members(_nearest_cells(others, centers, CELLS_EACH), cells)
    yield from zip(mine, theirs, strict=True)


def _nearest_cells(signatures: np.ndarray, centers: np.ndarray, each: int) -> np.ndarray:
    """int64 N×each: the cells whose centers are nearest."""
    found = np.empty((len(signatures), each), np.int64)
    for start in range(0, len(signatures), 8192):
        far = -(signatures[start : start + 8192] @ centers.T)
        found[start : start + 8192] = np.argpartition(far, each - 1, axis=1)[:, :each]
    return found


def _members(assigned: np.ndarray, cells: int) -> list[np.ndarray]:
    order = np.argsort(assigned, axis=None, kind="stable")
    bounds = np.searchsorted(assigned.reshape(-1)[order], np.arange(1, cells))
    return [np.sort(part // assigned.shape[1]) for part in np.split(order, bounds)]


def _close_in_cell(
    signatures: np.ndarray, others: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of ``rows`` and ``columns`` with a cosine of at least CLOSE, no picture with itself."""
    found = [(rows[:0], rows[:0], np.empty(0, np.float32))]
    right = others[columns].T
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        cosine = signatures[part] @ right
        row, column = np.nonzero(cosine >= CLOSE)
        if len(row) > 4 * NEIGHBORS * len(part):  # a crowd of look-alikes: only the nearest of each
            place = np.argpartition(-cosine, NEIGHBORS, axis=1)[:, : NEIGHBORS + 1]
            near, rank = np.nonzero(np.take_along_axis(cosine, place, 1) >= CLOSE)
            row, column = near, place[near, rank]
        first, second = part[row], columns[column]
        other = first != second
        found.append((first[other], second[other], cosine[row, column][other]))
    first, second, near = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, near


def _nearest_of_each(first: np.ndarray, second: np.ndarray, cosine: np.ndarray, count: int) -> np.ndarray:
    """Which pairs to keep: those among the NEIGHBORS nearest of either picture."""
    kept = np.zeros(len(first), bool)
    for picture in (first, second):
        order = np.lexsort((-cosine, picture))
        starts = np.searchsorted(picture[order], np.arange(count))
        kept[order[np.arange(len(order)) - starts[picture[order]] < NEIGHBORS]] = True
    return kept


# ---- verification -----------------------------------------------------------------------------------------------


def verify(prints: Prints, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray, told: Tell = _nobody) -> Pairs:
    """Of the candidates those whose detail correlates enough at the best shift."""
    score = _scores(prints, first, second, mirrored, told)
    least = chance(prints)
    same = np.flatnonzero(score >= np.where(mirrored, max(SAME_MIRRORED, least), max(SAME, least)))
    order = same[np.argsort(-score[same], kind="stable")]
    return Pairs(first[order], second[order], score[order], mirrored[order], max(SAME, least))


def chance(prints: Prints) -> float:
    """The correlation that pictures of this dataset don't reach by being of one kind.

    Scans of digits or faces in one pose all correlate, photographs don't. Of random pairs the median and the 99th
    percentile (of a few pictures the 90th, since copies may be a good part of their pairs) give center and spread
    after Fisher's transformation; what is asked for lies eight spreads above.
    """
    count = len(prints.detail)
    if count < 8:
        return 0.0
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, count, (2, 6000))
    second = np.where(first == second, (second + 1) % count, second)
    score = _scores(prints, first, second, np.zeros(len(first), bool))
    quantile, spreads = (0.99, 2.326) if count >= 300 else (0.9, 1.282)
    center, high = np.arctanh(np.clip(np.quantile(score, [0.5, quantile]), -0.999, 0.999))
    return float(np.tanh(center + SPREADS * (high - center) / spreads))


def _scores(
    prints: Prints, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray, told: Tell = _nobody
) -> np.ndarray:
    score = np.empty(len(first), np.float32)

    def work(start: int) -> None:
        part = slice(start, start + 512)
        other = prints.detail[second[part]].astype(np.float32)
        turned = mirrored[part]
        other[turned] = other[turned][:, :, ::-1]
        score[part] = correlation(prints.detail[first[part]].astype(np.float32), other)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(work, range(0, len(first), 512)), 1):
            told("compare", min(done * 512, len(first)), len(first), "pairs")
    return score


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Normalized cross-correlation of float32 N×32×32 with N×32×32 at the best shift: float32 N, from -1 to 1."""
    count, inner = len(one), SIDE - 2 * SHIFT
    middle = one[:, SHIFT:-SHIFT, SHIFT:-SHIFT].reshape(count, -1)
    middle = middle - middle.mean(1, keepdims=True)
    length = np.linalg.norm(middle, axis=1)
    best = np.full(count, -1.0, np.float32)
    least = (SIDE * _SCALE * 0.1) ** 2  # a product of two lengths below which there is no detail to compare
    for top in range(2 * SHIFT + 1):
        for left in range(2 * SHIFT + 1):
            moved = other[:, top : top + inner, left : left + inner].reshape(count, -1)
            centered = moved - moved.mean(1, keepdims=True)
            product = np.einsum("ni,ni->n", middle, centered)
            np.maximum(best, product / np.maximum(length * np.linalg.norm(centered, axis=1), least), out=best)
    return best
