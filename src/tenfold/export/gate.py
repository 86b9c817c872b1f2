"""No artifact leaves without a parity verdict: what it answers against what it must answer.

A bundle's model.onnx is held to its golden images (``require``); an exported artifact to them and to the validation
split, with labels (``replay``).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tenfold.errors import BundleError

TOLERANCE = 1e-4
# Two classes this close are a tie, and float32 sums in another order may turn it.
TIE = 1e-5


@dataclass(frozen=True)
class Verdict:
    """How far probabilities are from the expected ones.

    images           how many were compared
    max_difference   the largest absolute difference of a probability
    top1_changed     images whose first class is another, ties left out
    tolerance        the largest difference allowed
    """

    images: int
    max_difference: float
    top1_changed: int
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.max_difference <= self.tolerance and not self.top1_changed

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(expected: np.ndarray, actual: np.ndarray, tolerance: float = TOLERANCE) -> Verdict:
    """The verdict on ``actual``, float32 N×classes like ``expected``. Another shape or a NaN is infinitely far."""
    if expected.shape != actual.shape or not np.isfinite(actual).all():
        return Verdict(len(expected), float("inf"), len(expected), tolerance)
    first, other = expected.argmax(1), actual.argmax(1)
    rows = np.arange(len(expected))
    changed = int((expected[rows, first] - expected[rows, other] > TIE).sum())
    difference = float(np.abs(expected.astype(np.float64) - actual).max(initial=0))
    return Verdict(len(expected), difference, changed, tolerance)


def require(expected: np.ndarray, actual: np.ndarray, what: str, tolerance: float = TOLERANCE) -> Verdict:
    """The verdict where it is good; BundleError, saying how far ``what`` is off, where it is not."""
    verdict = compare(expected, actual, tolerance)
    if not verdict.passed:
        raise BundleError(
            f"{what} does not give the answers it must: on {verdict.images} golden images a probability is off by "
            f"{verdict.max_difference:.2g} (at most {tolerance:g} is allowed), and {verdict.top1_changed} have "
            "another first class."
        )
    return verdict


# ---- exported artifacts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tolerance:
    """How far a format's answers may be off, on each set of images.

    max_difference   of a probability
    changed          share of the images whose first class may be another, rounded up to whole images
    lost             share of the images by which accuracy may fall, rounded up to whole images
    """

    max_difference: float
    changed: float
    lost: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


EXACT = Tolerance(TOLERANCE, 0, 0)  # the same arithmetic, in another order
FP16 = Tolerance(0.02, 0.005, 0.001)
INT8 = Tolerance(0.35, 0.04, 0.005)


@dataclass(frozen=True)
class Replay:
    """An artifact's answers to one set of images, beside those expected.

    set                 ``golden``, or the split
    images              how many
    max_difference      largest absolute difference of a probability; infinite where answers are missing or not finite
    mean_difference     mean absolute difference
    top1_changed        images whose first class is another, ties left out
    accuracy, expected_accuracy   of the artifact and of the bundle, 0 to 1; None without labels
    lost                images that the bundle gets right beyond those that the artifact does; below 0 where it is
                        the other way round; None without labels
    """

    set: str
    images: int
    max_difference: float
    mean_difference: float
    top1_changed: int
    accuracy: float | None = None
    expected_accuracy: float | None = None
    lost: int | None = None

    def reasons(self, tolerance: Tolerance) -> list[str]:
        """Why this is too far off, in sentences; empty where it is near enough."""
        found = []
        where = f"on {self.images:,} {'golden images' if self.set == 'golden' else f'images of {self.set}'}"
        if not self.max_difference <= tolerance.max_difference:
            found.append(
                f"{where} a probability is off by {self.max_difference:.2g}; {tolerance.max_difference:g} is allowed"
            )
        if self.top1_changed > (allowed := math.ceil(tolerance.changed * self.images)):
            found.append(f"{where} {self.top1_changed:,} have another first class; {allowed:,} may")
        if self.lost is not None and self.lost > (allowed := math.ceil(tolerance.lost * self.images)):
            found.append(f"{where} {self.lost:,} fewer are right; {allowed:,} may be")
        return found


def replay(name: str, expected: np.ndarray, actual: np.ndarray, labels: np.ndarray | None = None) -> Replay:
    """How far ``actual`` is from ``expected``, both float32 N×classes, on the set of images called ``name``.

    ``labels``: int64 N, what the images show.
    """
    verdict = compare(expected, actual)
    if not np.isfinite(verdict.max_difference):
        return Replay(name, len(expected), math.inf, math.inf, len(expected))
    mean = float(np.abs(expected.astype(np.float64) - actual).mean()) if len(expected) else 0.0
    if labels is None or not len(labels):
        return Replay(name, len(expected), verdict.max_difference, mean, verdict.top1_changed)
    right, wanted = int((actual.argmax(1) == labels).sum()), int((expected.argmax(1) == labels).sum())
    # a tie may fall either way, and is no loss
    lost = min(wanted - right, verdict.top1_changed)
    n = len(labels)
    return Replay(name, n, verdict.max_difference, mean, verdict.top1_changed, right / n, wanted / n, lost)
