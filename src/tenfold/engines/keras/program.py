"""A training step as one pure function, compiled once for each size of pictures.

From (carry, batch, numbers, seed, constants) to the carry after the step. Nothing in it changes with the step's number
but what comes in as an array, so it holds for the whole run, and for every run with the same settings in the process.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from tenfold.architecture.layers import Architecture
from tenfold.architecture.weights import specs
from tenfold.engines import rules
from tenfold.engines.base import Device
from tenfold.engines.batches import shrunk
from tenfold.engines.groups import Group, body
from tenfold.engines.keras import build
from tenfold.engines.keras.augment import augment
from tenfold.engines.keras.framework import chosen
from tenfold.engines.schedule import forgotten
from tenfold.recipe import Augment, Optimizer, Recipe

Array = Any


class Arrays:
    """Keras's arrays for :mod:`tenfold.engines.rules`: kernels are rows×columns×in×out."""

    def matrix(self, kernel: Array) -> Array:
        return ops.reshape(ops.transpose(kernel, (3, 0, 1, 2)), (kernel.shape[3], -1))

    def kernel(self, matrix: Array, like: Array) -> Array:
        rows, columns, before, after = like.shape
        return ops.transpose(ops.reshape(matrix, (after, rows, columns, before)), (1, 2, 3, 0))

    def transpose(self, matrix: Array) -> Array:
        return ops.transpose(matrix)

    def total(self, array: Array) -> Array:
        return ops.sum(array)


@dataclass(frozen=True)
class Settings:
    """All that decides what a compiled step computes. ``resting``: all but the last layer stays as it is."""

    architecture: Architecture
    groups: tuple[Group, ...]
    optimizer: Optimizer
    augment: Augment
    label_smoothing: float
    parts: int
    precision: str
    device: Device
    size: int | None
    resting: bool = False

    def scalars(self) -> list[tuple[int, str]]:
        """What each of ``numbers`` is from the second on: a group's place and its scalar's name."""
        return [
            (i, name)
            for i, group in enumerate(self.groups)
            for name in (("rate", "root", "kept") if group.rule in ("adam", "adamw") else ("rate",))
        ]


@functools.lru_cache(maxsize=16)
def compiled(settings: Settings) -> Any:
    """(carry, batch, numbers, seed, constants) → carry.

    carry      ``weights``, ``buffers`` by weight and name, ``average`` (empty without one), ``sums`` (float32: summed
               loss, images right); its memory is taken for the result's
    batch      as :class:`tenfold.engines.keras.feed.Feed` gives it
    numbers    float32: the share of the average that this step replaces, then :meth:`Settings.scalars`
    constants  ``mean`` colour; ``classes``, the loss's weights, and the ``pixels`` on the device where there are such
    """
    framework = chosen()
    with framework.on(settings.device):
        step = _Step(settings)
    return framework.compiled(step, settings.device, spend_first=True)


class _Step:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        own = settings.architecture
        size = shrunk(own.height, own.width, settings.size)
        self.net = build.build(own, settings.precision, settings.parts, size, settings.resting)
        still = body(own) if settings.resting else ()
        self.trained = [n for n, spec in specs(own).items() if spec.role == "trained" and n not in still]
        self.scalars = settings.scalars()

    def __call__(
        self, carry: dict[str, Any], batch: dict[str, Any], numbers: Array, seed: Array, constants: dict[str, Any]
    ) -> dict[str, Any]:
        weights = carry["weights"]
        images = batch["images"] if "images" in batch else ops.take(constants["pixels"], batch["index"], axis=0)
        images = augment(images, batch["draws"], self.settings.augment, constants["mean"], self.settings.size)

        def loss(trained: dict[str, Array]) -> tuple[Array, Any]:
            logits, after = self.net.forward({**weights, **trained}, images, seed)
            return self._loss(logits, batch, constants.get("classes")), (logits, after)

        value, (logits, after), gradients = chosen().value_and_gradients(loss, {n: weights[n] for n in self.trained})
        right = ops.sum(ops.cast(ops.equal(_argmax(logits), batch["labels"]), "float32"))
        updated, buffers = self._update(weights, gradients, carry["buffers"], numbers)
        weights = {**weights, **after, **updated}
        average = {n: a + (weights[n] - a) * numbers[0] for n, a in carry["average"].items()}
        sums = carry["sums"] + ops.stack([value * batch["labels"].shape[0], right])
        return {"weights": weights, "buffers": buffers, "average": average, "sums": sums}

    def _loss(self, logits: Array, batch: dict[str, Any], classes: Array | None) -> Array:
        labels, draws = batch["labels"], batch["draws"]
        smoothing = self.settings.label_smoothing
        if "other" not in draws:
            return cross_entropy(logits, labels, smoothing, classes)
        other = ops.take(labels, draws["other"], axis=0)
        return cross_entropy(logits, labels, smoothing, classes) * draws["share"] + cross_entropy(
            logits, other, smoothing, classes
        ) * (1 - draws["share"])

    def _update(
        self, weights: Mapping[str, Array], gradients: Mapping[str, Array], held: Mapping[str, Any], numbers: Array
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        updated, buffers = {}, {}
        for i, group in enumerate(self.settings.groups):
            now = {name: numbers[at + 1] for at, (of, name) in enumerate(self.scalars) if of == i}
            for name in group.names:
                if name not in gradients:  # it rests
                    updated[name], buffers[name] = weights[name], held[name]
                    continue
                updated[name], buffers[name] = rules.update(
                    group, self.settings.optimizer, weights[name], gradients[name], held[name], now, Arrays()
                )
        return updated, buffers


def _argmax(logits: Array) -> Array:
    return ops.cast(ops.argmax(logits, axis=1), "int32")


def cross_entropy(logits: Array, labels: Array, smoothing: float, classes: Array | None = None) -> Array:
    """The batch's mean loss: logits float32 N×K, labels int32 N, ``classes`` float32 K weighing each class or None.

    As ``torch.nn.functional.cross_entropy``: the mean is over the labels' weights, and smoothing spreads a share of
    the target evenly over all classes, each of them weighed.
    """
    count = logits.shape[1]
    chances = ops.log_softmax(logits, axis=1)
    hot = ops.one_hot(labels, count, dtype="float32")
    target = hot * (1 - smoothing) + smoothing / count
    if classes is None:
        return -ops.sum(target * chances) / logits.shape[0]
    return -ops.sum(target * chances * classes) / ops.sum(hot * classes)


def numbers(settings: Settings, recipe: Recipe, done: float, step: int, rested: int) -> np.ndarray:
    """What changes from step to step, in the order in which the compiled step reads it. In ``rested`` of the steps so
    far all but the last layer rested."""
    replaced = forgotten(recipe.ema, step) if recipe.ema is not None else 0.0
    counts = (step - rested if group.start else step for group in settings.groups)
    now = [rules.scalars(group, recipe, done, n) for group, n in zip(settings.groups, counts, strict=True)]
    return np.array([replaced, *(now[i][name] for i, name in settings.scalars())], np.float32)
