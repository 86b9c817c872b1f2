"""Which images a step takes, in NumPy: a function of (seed, step) alone, the same for every engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from tenfold.engines.parts import named
from tenfold.engines.schedule import Plan

T = TypeVar("T")

AHEAD = 3  # batches read before they are asked for, when streaming


def order(seed: int, epoch: int, images: int) -> np.ndarray:
    """The order of an epoch's images: int64, a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, 0x0DE2, epoch]).permutation(images)


class Rows:
    """``rows.of(step)``: the images of a step, int64 B, a function of (seed, step) alone. An epoch's order is kept."""

    def __init__(self, plan: Plan, seed: int, images: int) -> None:
        self.plan, self.seed, self.images = plan, seed, images
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def of(self, step: int) -> np.ndarray:
        epoch = self.plan.epoch_of(step)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order(self.seed, epoch, self.images)
        start = step % self.plan.steps_per_epoch * self.plan.batch_size
        return self._order[start : start + self.plan.batch_size]


def flip_sides(seed: int, images: int) -> np.ndarray:
    """bool, one an image: whether ``flip: alternating`` mirrors it in even or odd epochs (K. Jordan 2024, airbench)."""
    return np.random.default_rng([seed, 0xF11B]).integers(0, 2, images).astype(bool)


def step_seed(seed: int, step: int) -> int:
    """A 63-bit seed for one step: splitmix64 of (seed, step)."""
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + (step + 1) * 0xD1B54A32D192ED03) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Loss weights by class, N / (classes · count), as scikit-learn's ``balanced``: float32; 0 for a class without
    images."""
    weights = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0)
    return weights.astype(np.float32)


def area(before: int, after: int) -> np.ndarray:
    """float32 after×before: the share of each source pixel in each target pixel's area. A picture is made smaller by
    averaging areas, which is one such product for its rows and one for its columns."""
    edges = np.linspace(0, before, after + 1)
    at = np.arange(before)
    overlap = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    return (np.clip(overlap, 0, None) * after / before).astype(np.float32)


def shrunk(height: int, width: int, size: int | None) -> tuple[int, int]:
    """Height and width of pictures brought to a longer side of at most ``size``; their own where that is None."""
    if size is None or size >= max(height, width):
        return height, width
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def read_ahead(
    images: np.ndarray,
    plan: Plan,
    seed: int,
    first: int,
    finish: Callable[[np.ndarray], T],
    rows: slice = slice(None),
) -> Iterator[tuple[int, T]]:
    """(step, ``finish`` of its uint8 B×H×W×3) from step ``first`` on, read AHEAD batches ahead by a thread; of each
    batch ``rows`` alone."""
    ready: queue.Queue[tuple[int, T] | BaseException] = queue.Queue(AHEAD)
    ended = threading.Event()

    def put(item: tuple[int, T] | BaseException) -> None:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            order_of = Rows(plan, seed, len(images))
            for step in range(first, plan.steps):
                with named("read"):
                    index = order_of.of(step)[rows]
                    ascending = np.argsort(index)  # the map is read front to back
                    pixels = np.empty((len(index), *images.shape[1:]), np.uint8)
                    pixels[ascending] = images[index[ascending]]
                    finished = finish(pixels)
                put((step, finished))
                if ended.is_set():
                    return
        except BaseException as error:
            put(error)

    threading.Thread(target=read, name="tenfold-feed", daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
