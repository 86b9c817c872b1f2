"""The figures of a classifier, from its probabilities and the labels, with their uncertainty. NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenfold.errors import DataError, TenfoldError
from tenfold.evaluation.calibration import Bin, error_by_chance, expected_calibration_error, reliability

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
TOP = 3


@dataclass(frozen=True)
class ClassFigures:
    """One class. A figure whose denominator is 0 is None, never 0 or NaN.

    precision  share of the images given this class that are of it; None if none was given it
    recall     share of this class's images that were found, with its 95 % interval; None if it has none
    f1         harmonic mean of the two; None if the class has no images
    support    images of this class
    predicted  images given this class
    """

    name: str
    precision: float | None
    recall: float | None
    recall_interval: tuple[float, float] | None
    f1: float | None
    support: int
    predicted: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "class": self.name,
            "precision": self.precision,
            "recall": self.recall,
            "recall_interval": list(self.recall_interval) if self.recall_interval else None,
            "f1": self.f1,
            "support": self.support,
            "predicted": self.predicted,
        }


@dataclass(frozen=True)
class Confusion:
    """``count`` images of class ``true``, the share ``share`` of its images, were taken for ``predicted``."""

    true: str
    predicted: str
    count: int
    share: float

    def to_dict(self) -> dict[str, Any]:
        return {"true": self.true, "predicted": self.predicted, "count": self.count, "share": self.share}


@dataclass(frozen=True)
class Evaluation:
    """What a model's probabilities are worth on labelled images.

    n                  images measured
    accuracy           share whose most probable class is the label (top-1)
    interval           its 95 % Wilson score interval (Wilson 1927), for the draw of the n images
    top3               share whose label is among the three most probable; None with three classes or fewer
    loss               mean negative log-likelihood of the label, in nats
    ece                expected calibration error over 15 equal-width bins
    ece_by_chance      about what it is for a perfectly calibrated model, by the draw of so many images alone
    balanced_accuracy  mean recall, and ``macro_f1`` mean F1, over the classes that have images
    confusion          int64 K×K: rows are the true classes, columns the predicted
    reliability        the bins behind ``ece``
    threshold          the highest probability below which an answer counts as unknown; None where the model has none
    known              share of the images that are not unknown, and ``known_accuracy`` what is right of these; None
                       without a threshold, the latter also where none is known
    split, data, tta   what was measured, and how; empty where unknown
    notes              sentences the reader must be told
    """

    classes: tuple[str, ...]
    n: int
    accuracy: float
    interval: tuple[float, float]
    top3: float | None
    loss: float
    ece: float
    ece_by_chance: float
    balanced_accuracy: float
    macro_f1: float
    per_class: tuple[ClassFigures, ...]
    confusion: np.ndarray
    reliability: tuple[Bin, ...]
    threshold: float | None = None
    known: float | None = None
    known_accuracy: float | None = None
    split: str = ""
    data: str = ""
    tta: str = "none"
    notes: tuple[str, ...] = ()

    def most_confused(self, limit: int = 10) -> tuple[Confusion, ...]:
        """Pairs of different classes, the most frequent first; equal ones in the order of the classes."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
        pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
        return tuple(
            Confusion(self.classes[i], self.classes[j], int(wrong[i, j]), float(wrong[i, j] / wrong_of))
            for i, j in pairs
            if wrong[i, j] and (wrong_of := self.per_class[i].support)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers, strings, lists and null."""
        return {
            "data": self.data,
            "split": self.split,
            "tta": self.tta,
            "n": self.n,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "top3": self.top3,
            "loss": self.loss,
            "ece": self.ece,
            "ece_by_chance": self.ece_by_chance,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "threshold": self.threshold,
            "known": self.known,
            "known_accuracy": self.known_accuracy,
            "classes": list(self.classes),
            "per_class": [c.to_dict() for c in self.per_class],
            "confusion_matrix": self.confusion.tolist(),
            "most_confused": [c.to_dict() for c in self.most_confused()],
            "reliability": [b.to_dict() for b in self.reliability],
            "notes": list(self.notes),
        }


def measure(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Evaluation:
    """Every figure at once.

    probabilities: N×K, rows summing to 1; labels: N whole numbers below K; classes: K names.
    Raises DataError for no images, TenfoldError for probabilities that are NaN, ValueError for unfit shapes.
    """
    n, k = len(labels), len(classes)
    if probabilities.shape != (n, k):
        raise ValueError(f"probabilities must be {n}×{k} (labels × classes), not {probabilities.shape}")
    if n == 0:
        raise DataError("There is nothing to measure: no images were given.")
    if labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"labels must lie in 0 to {k - 1}")
    bad = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if bad:
        raise TenfoldError(
            f"The model gives no number (NaN) as probability for {bad:,} of {n:,} images.",
            "Its weights are broken: train it again, with a lower learning rate if it diverged.",
        )
    predicted = probabilities.argmax(axis=1)
    true = probabilities[np.arange(n), labels]
    confusion = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k).astype(np.int64)
    right = int(np.trace(confusion))
    per_class = tuple(_class_figures(confusion, i, name) for i, name in enumerate(classes))
    present = [c for c in per_class if c.support]
    bins = reliability(probabilities, labels)
    floor = np.finfo(np.float32).tiny  # a probability that float32 rounded to 0 costs 87, not infinity
    return Evaluation(
        classes=tuple(classes),
        n=n,
        accuracy=right / n,
        interval=wilson(right, n),
        top3=_top(probabilities, labels, true) if k > TOP else None,
        loss=float(-np.log(np.maximum(true.astype(np.float64), floor)).mean()),
        ece=expected_calibration_error(bins),
        ece_by_chance=error_by_chance(bins),
        balanced_accuracy=math.fsum(c.recall or 0.0 for c in present) / len(present),
        macro_f1=math.fsum(c.f1 or 0.0 for c in present) / len(present),
        per_class=per_class,
        confusion=confusion,
        reliability=bins,
    )


def with_threshold(
    evaluation: Evaluation, probabilities: np.ndarray, labels: np.ndarray, threshold: float | None
) -> Evaluation:
    """``evaluation``, of these probabilities N×K and labels N, with what ``threshold`` makes of them."""
    if threshold is None:
        return evaluation
    known = probabilities.max(axis=1) >= np.float32(threshold)
    right = (probabilities.argmax(axis=1) == labels)[known]
    share = float(right.mean()) if len(right) else None
    return replace(evaluation, threshold=threshold, known=float(known.mean()), known_accuracy=share)


def wilson(right: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for ``right`` of ``n``: holds for small n and near 0 and 1, unlike ±z·σ."""
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if right == 0 else max(0.0, centre - half)
    high = 1.0 if right == n else min(1.0, centre + half)
    return low, high


def _class_figures(confusion: np.ndarray, index: int, name: str) -> ClassFigures:
    hit = int(confusion[index, index])
    support, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    return ClassFigures(
        name=name,
        precision=hit / predicted if predicted else None,
        recall=hit / support if support else None,
        recall_interval=wilson(hit, support) if support else None,
        f1=2 * hit / (support + predicted) if support else None,
        support=support,
        predicted=predicted,
    )


def _top(probabilities: np.ndarray, labels: np.ndarray, true: np.ndarray) -> float:
    """Equal probabilities rank in the order of the classes, as argmax takes the first."""
    above = (probabilities > true[:, None]).sum(axis=1)
    ties = (probabilities == true[:, None]) & (np.arange(probabilities.shape[1]) < labels[:, None])
    return float((above + ties.sum(axis=1) < TOP).mean())
