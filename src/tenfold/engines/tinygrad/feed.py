"""What a step computes on: pictures and targets made ready in NumPy by a thread that reads ahead."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tenfold.data.dataset import Split
from tenfold.engines import batches
from tenfold.engines.draws import Draws, draw
from tenfold.engines.schedule import Plan
from tenfold.engines.tinygrad.augment import moved
from tenfold.recipe import Recipe

Arrays = dict[str, np.ndarray]


class Feed:
    """Batches of a split, sent to the device one by one.

    ``take(step)`` gives arrays by name: ``pixels`` B×H×W×3, ``labels`` int32 B, ``targets`` float32 B×classes (the loss
    is minus their product with the logarithms of the network's probabilities, summed), and what augmentation draws.
    """

    def __init__(self, split: Split, plan: Plan, recipe: Recipe, classes: int) -> None:
        self.split, self.plan, self.recipe, self.classes = split, plan, recipe, classes
        self.sides = batches.flip_sides(recipe.seed, len(split))
        self.weights = np.ones(classes, np.float32)
        if recipe.class_weights == "balanced":
            self.weights = batches.class_weights(np.bincount(split.labels, minlength=classes))
        self._rows = batches.Rows(plan, recipe.seed, len(split))
        self._stream: Iterator[tuple[int, Arrays]] | None = None

    def take(self, step: int) -> Arrays:
        """The batch of a step, a function of (seed, step) alone."""
        if self._stream is None:
            self._stream = self._read_ahead(step)
        at, arrays = next(self._stream)
        if at != step:
            raise RuntimeError(f"step {step} was asked for, and {at} is next")
        return arrays

    def close(self) -> None:
        """Ends the thread."""
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]
            self._stream = None

    def _read_ahead(self, step: int) -> Iterator[tuple[int, Arrays]]:
        steps = itertools.count(step)
        return batches.read_ahead(
            self.split.images, self.plan, self.recipe.seed, step, lambda pixels: self._finish(next(steps), pixels)
        )

    def _finish(self, step: int, pixels: np.ndarray) -> Arrays:
        settings, epoch = self.recipe.augment, self.plan.epoch_of(step)
        index = self._rows.of(step)
        sides = self.sides[index] ^ bool(epoch % 2) if settings.flip == "alternating" else None
        count, height, width, _ = pixels.shape
        drawn = draw(settings, count, height, width, self.recipe.seed, step, sides)
        labels = self.split.labels[index]
        made = {"pixels": moved(pixels, drawn), "labels": labels.astype(np.int32), "targets": self._targets(labels)}
        for name in ("color", "cutout", "box"):
            array = getattr(drawn, name)
            if array is not None:
                made[name] = array
        if drawn.other is not None:
            self._mix(made, drawn, labels)
        return {name: np.ascontiguousarray(array) for name, array in made.items()}

    def _mix(self, made: Arrays, drawn: Draws, labels: np.ndarray) -> None:
        """What each picture is mixed with is sent beside it: a device that looks rows up is slow through tinygrad."""
        assert drawn.share is not None
        made["mixed_pixels"] = made["pixels"][drawn.other]
        for name in ("color", "cutout"):
            if name in made:
                made[f"mixed_{name}"] = made[name][:, drawn.other]
        share = np.float32(drawn.share)
        made["share"] = np.array([share], np.float32)
        made["targets"] = share * made["targets"] + (1 - share) * self._targets(labels[drawn.other])

    def _targets(self, labels: np.ndarray) -> np.ndarray:
        """float32 B×classes: PyTorch's cross-entropy with class weights and smoothing, as weights of log-probabilities.
        A batch in which every label's weight is 0 is left out of the mean."""
        smoothing = self.recipe.label_smoothing
        chosen = self.weights[labels]
        out = np.broadcast_to(self.weights * (smoothing / self.classes), (len(labels), self.classes)).copy()
        out[np.arange(len(labels)), labels] += (1 - smoothing) * chosen
        return (out / max(chosen.sum(), 1e-12)).astype(np.float32)
