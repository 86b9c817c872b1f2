"""The temperature beside a plain minimiser's, and where there is little or nothing to fit it on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import (
    error_by_chance,
    expected_calibration_error,
    fit_temperature,
    fit_threshold,
    reliability,
    softmax,
)


def _drawn(n: int, k: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from softmax(logits / temperature): the temperature to be found."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 3
    p = np.exp(log_softmax(logits / temperature, axis=1))
    labels = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.0, 2.5, 8.0])
def test_finds_the_minimum_of_the_likelihood(temperature: float) -> None:
    logits, labels = _drawn(20_000, 10, temperature)

    def nll(log_t: float) -> float:
        return -log_softmax(logits.astype(np.float64) / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean()

    best = np.exp(minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert fit_temperature(logits, labels) == pytest.approx(best, rel=2e-3)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_scaled_logits_scale_the_temperature() -> None:
    logits, labels = _drawn(20_000, 5, 1.0)
    assert fit_temperature(logits * 4, labels) == pytest.approx(4 * fit_temperature(logits, labels), rel=5e-3)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = _drawn(1000, 7, 2.0)
    whole = fit_temperature(logits, labels)
    monkeypatch.setattr("tenfold.evaluation.calibration._CHUNK", 100)
    assert fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-9)


def test_nothing_to_fit_gives_one() -> None:
    assert fit_temperature(np.zeros((0, 10), np.float32), np.zeros(0, np.int64)) == 1.0
    assert fit_temperature(np.ones((5, 1), np.float32), np.zeros(5, np.int64)) == 1.0
    assert fit_temperature(np.zeros((50, 3), np.float32), np.zeros(50, np.int64)) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [1, 5, 100, 5000])
@pytest.mark.parametrize("margin", [0.5, 6.0, 1e6])
def test_no_mistakes_keeps_the_temperature_within_reason(n: int, margin: float) -> None:
    labels = np.arange(n) % 4
    logits = np.eye(4)[labels] * margin
    assert 0.05 <= fit_temperature(logits, labels) <= 1.0
    if margin == 6.0 and n <= 100:
        assert fit_temperature(logits, labels) > 0.5


@pytest.mark.parametrize("margin", [6.0, 1e6])
def test_only_mistakes_stays_in_bounds(margin: float) -> None:
    logits = np.eye(4)[np.zeros(300, np.int64)] * margin
    found = fit_temperature(logits, np.ones(300, np.int64))
    assert 1.0 < found <= 20.0


def test_infinite_logits_are_an_error() -> None:
    with pytest.raises(TenfoldError, match="NaN or infinite"):
        fit_temperature(np.array([[np.inf, 0.0]]), np.array([0]))


def test_fitting_lowers_the_calibration_error() -> None:
    logits, labels = _drawn(20_000, 10, 3.0)
    before = expected_calibration_error(reliability(softmax(logits), labels))
    after = expected_calibration_error(reliability(softmax(logits, fit_temperature(logits, labels)), labels))
    assert after < 0.02 < before


def test_reliability_bins_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.55, 0.45], [1.0, 0.0]], np.float32)
    bins = reliability(p, np.array([0, 1, 0, 0]), bins=10)
    assert [(round(b.low, 1), b.count, b.accuracy) for b in bins] == [
        (0.5, 1, 1.0),
        (0.8, 2, 0.5),
        (0.9, 1, 1.0),
    ]
    assert expected_calibration_error(bins) == pytest.approx((0.45 + 2 * 0.4 + 0) / 4, abs=1e-6)
    assert expected_calibration_error(()) == 0.0


def test_softmax_survives_large_logits() -> None:
    p = softmax(np.array([[1e4, 0.0], [0.0, 0.0]], np.float32))
    assert p.dtype == np.float32 and p.tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("n", [200, 2000])
def test_error_by_chance_is_what_exact_probabilities_show(n: int) -> None:
    rng = np.random.default_rng(n)
    shown, told = [], []
    for _ in range(60):
        p = softmax(rng.normal(size=(n, 6)) * 3)
        labels = (p.cumsum(1) > rng.random((n, 1)) * p.sum(1, keepdims=True)).argmax(1)
        bins = reliability(p, labels)
        shown.append(expected_calibration_error(bins))
        told.append(error_by_chance(bins))
    assert np.mean(told) == pytest.approx(np.mean(shown), rel=0.12)
    assert error_by_chance(()) == 0.0


@pytest.mark.parametrize("n", [20, 21, 500, 5000])
def test_the_threshold_is_one_that_95_of_100_images_reach(n: int) -> None:
    p = softmax(np.random.default_rng(n).normal(size=(n, 10)) * 3)
    threshold = fit_threshold(p)
    assert threshold is not None and (p.max(axis=1) >= threshold).mean() == pytest.approx(0.95, abs=1.01 / n + 1e-9)
    assert threshold in p.max(axis=1).tolist(), "one of the images' own, which is then known"


def test_too_few_images_give_no_threshold() -> None:
    assert fit_threshold(np.full((19, 4), 0.25, np.float32)) is None
