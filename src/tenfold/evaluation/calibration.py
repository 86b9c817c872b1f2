"""Calibration: one temperature that makes probabilities mean what they say, how far they are from it, and below which
probability an answer counts as unknown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfold.errors import TenfoldError

BINS = 15
LIMIT = 20.0  # temperatures lie in 1/LIMIT to LIMIT
KNOWN = 0.95  # share of validation images that stays known
FEWEST = 20  # images that a threshold can be told from
PRIOR = 1.0  # weight of the pull towards 1, about one image's worth
_CHUNK = 1 << 20  # logits taken at once in float64: 8 MB


@dataclass(frozen=True)
class Bin:
    """Images whose highest probability lies in ``(low, high]``: how many, their mean highest probability
    (``confidence``) and the share that is right (``accuracy``). ``chance`` is how far these two would lie apart on
    average by the draw of so many images alone, were the probabilities exact."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float
    chance: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "low": self.low,
            "high": self.high,
            "count": self.count,
            "confidence": self.confidence,
            "accuracy": self.accuracy,
            "chance": self.chance,
        }


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T by which logits are divided before softmax so that the labels are most likely.

    Minimises the negative log-likelihood over one number (Guo et al. 2017, On Calibration of Modern Neural
    Networks). In b = 1/T the sum is convex; to it a weak prior is added, ``b - log b`` (a Gamma density with
    its mode at T = 1) with the weight of about one image. With thousands of images it can't be noticed; with
    ten, or where the network makes no mistake and the likelihood alone would send T to 0, it keeps T near 1.

    logits: N×K, labels: N whole numbers below K. Returns a number from 1/20 to 20; 1.0 for no images.
    Raises TenfoldError where logits are NaN or infinite.
    """
    n = len(labels)
    if logits.ndim != 2 or logits.shape[0] != n:
        raise ValueError(f"logits must be N×K for {n} labels, not {logits.shape}")
    if n == 0 or logits.shape[1] < 2:
        return 1.0
    if not np.isfinite(logits).all():
        raise TenfoldError("The temperature can't be fitted: some logits are NaN or infinite.")
    low, high = 1 / LIMIT, LIMIT
    b = 1.0
    for _ in range(60):
        slope, curvature = _derivatives(logits, labels, b)
        if slope > 0:
            high = b
        else:
            low = b
        step = b - slope / curvature
        # Newton inside the bracket; where it would leave it, the bracket's middle on the log scale
        new = step if low < step < high else math.sqrt(low * high)
        if abs(new - b) <= 1e-10 * b:
            break
        b = new
    return 1 / b


def fit_threshold(probabilities: np.ndarray) -> float | None:
    """The highest probability that KNOWN of these images reach: what falls below it counts as unknown.

    Of pictures like these so few are called unknown, and of pictures of something else, over which a model is less
    sure, more (the maximum softmax probability of Hendrycks & Gimpel 2017, at the usual 95 % of known pictures).

    probabilities: N×K of validation images, calibrated. None for fewer than 20, whose twentieth would be one image.
    """
    if len(probabilities) < FEWEST:
        return None
    return float(np.quantile(probabilities.max(axis=1), 1 - KNOWN, method="lower"))


def _derivatives(logits: np.ndarray, labels: np.ndarray, b: float) -> tuple[float, float]:
    """First and second derivative, by b = 1/T, of the summed negative log-likelihood with the prior."""
    slope, curvature = PRIOR * (1 - 1 / b), PRIOR / b**2
    for part, true in _chunks(logits, labels):
        part = part - part[np.arange(len(part)), true][:, None]  # margins: the true class's logit becomes 0
        weights = np.exp(b * (part - part.max(axis=1, keepdims=True)))
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * part).sum(axis=1)
        slope += float(mean.sum())
        curvature += float((weights * (part - mean[:, None]) ** 2).sum())
    return slope, curvature


def _chunks(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rows = max(1, _CHUNK // logits.shape[1])
    for start in range(0, len(logits), rows):
        yield logits[start : start + rows].astype(np.float64), labels[start : start + rows]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float32 N×K of logits N×K, computed in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled.astype(np.float32)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """Confidence beside accuracy in equal-width bins over the highest probability; empty bins are left out.

    probabilities: N×K, labels: N.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    sums = np.bincount(index, weights=confidence, minlength=bins)
    hits = np.bincount(index, weights=right, minlength=bins)
    variance = np.bincount(index, weights=confidence * (1 - np.minimum(confidence, 1)), minlength=bins)
    chance = np.sqrt(variance * 2 / np.pi)  # mean absolute value of a normal distribution of that variance
    return tuple(
        Bin(
            low=i / bins,
            high=(i + 1) / bins,
            count=int(count[i]),
            confidence=float(sums[i] / count[i]),
            accuracy=float(hits[i] / count[i]),
            chance=float(chance[i] / count[i]),
        )
        for i in range(bins)
        if count[i]
    )


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """Mean distance between confidence and accuracy, each bin weighed by its images (Naeini et al. 2015)."""
    n = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / n if n else 0.0


def error_by_chance(bins: tuple[Bin, ...]) -> float:
    """About what a perfectly calibrated model's calibration error comes to in these bins: never 0, since every bin
    has a finite number of images. A measured error near it is no sign of miscalibration."""
    n = sum(b.count for b in bins)
    return sum(b.count * b.chance for b in bins) / n if n else 0.0
