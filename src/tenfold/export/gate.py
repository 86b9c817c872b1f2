"""No artifact leaves without a parity verdict: what it answers against what it must answer, on golden images."""

from __future__ import annotations

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
