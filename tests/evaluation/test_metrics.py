"""Every figure beside scikit-learn's, and the cases where a figure does not exist."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tenfold.errors import DataError, TenfoldError
from tenfold.evaluation.metrics import measure, wilson, with_threshold


def _case(n: int, k: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += sharpness * rng.random(n)
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize(("n", "k"), [(2000, 10), (400, 2), (3000, 100), (37, 4)])
def test_figures_equal_scikit_learns(n: int, k: int) -> None:
    p, labels = _case(n, k, seed=n)
    found = measure(p, labels, [f"c{i}" for i in range(k)])
    predicted = p.argmax(1)
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert found.loss == pytest.approx(
        sk.log_loss(labels, p / p.sum(1, keepdims=True, dtype=np.float64), labels=range(k)), rel=1e-5
    )
    assert np.array_equal(found.confusion, sk.confusion_matrix(labels, predicted, labels=range(k)))
    present = np.unique(labels)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(k), zero_division=np.nan
    )
    for i, c in enumerate(found.per_class):
        assert c.support == support[i]
        for mine, theirs in ((c.precision, precision[i]), (c.recall, recall[i])):
            assert (mine is None and np.isnan(theirs)) or mine == pytest.approx(theirs)
        assert (c.f1 is None) == (support[i] == 0)
        if c.f1 is not None:
            assert c.f1 == pytest.approx(np.nan_to_num(f1[i]))
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(
        sk.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    )
    if k > 3:
        assert found.top3 == pytest.approx(sk.top_k_accuracy_score(labels, p, k=3, labels=range(k)))
    else:
        assert found.top3 is None


def test_a_class_without_images_has_null_not_nan() -> None:
    p = np.array([[0.7, 0.2, 0.1, 0.0], [0.6, 0.1, 0.3, 0.0], [0.1, 0.2, 0.7, 0.0]], np.float32)
    found = measure(p, np.array([0, 1, 0]), ["a", "b", "c", "d"])
    a, b, c, d = found.per_class
    assert (a.precision, a.recall, a.support, a.predicted) == (0.5, 0.5, 2, 2)
    assert b.precision is None and b.recall == 0.0 and b.f1 == 0.0
    assert c.precision == 0.0 and c.recall is None and c.recall_interval is None and c.f1 is None
    assert (d.precision, d.recall, d.f1) == (None, None, None)
    assert found.balanced_accuracy == 0.25
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["per_class"][2]["recall"] is None


def test_to_dict_has_the_published_keys() -> None:
    p, labels = _case(50, 5, seed=1)
    found = measure(p, labels, list("abcde")).to_dict()
    expected = {
        "accuracy",
        "interval",
        "n",
        "top3",
        "loss",
        "ece",
        "per_class",
        "confusion_matrix",
        "classes",
        "split",
    }
    assert expected <= set(found)
    assert {"class", "precision", "recall", "recall_interval", "f1", "support"} <= set(found["per_class"][0])
    assert sum(map(sum, found["confusion_matrix"])) == 50
    assert found["interval"][0] < found["accuracy"] < found["interval"][1]


def test_most_confused_pairs_come_in_order_and_leave_out_what_is_right() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 1, 1, 2, 1, 2, 2])
    found = measure(np.eye(3, dtype=np.float32)[predicted], labels, ["cat", "dog", "emu"])
    pairs = [(c.true, c.predicted, c.count, c.share) for c in found.most_confused()]
    assert pairs == [("cat", "dog", 2, 0.5), ("cat", "emu", 1, 0.25), ("dog", "emu", 1, 0.5)]
    assert len(found.most_confused(1)) == 1


def test_a_certain_and_wrong_answer_costs_a_finite_loss() -> None:
    found = measure(np.array([[1, 0]], np.float32), np.array([1]), ["a", "b"])
    assert 80 < found.loss < 100


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(81, 100, 0.7222, 0.8749), (10, 10, 0.7225, 1.0), (0, 20, 0, 0.1611)]
)
def test_wilson_interval_as_published(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=2e-4)


@given(st.integers(1, 10_000), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_wilson_interval_holds_the_share(n: int, share: float) -> None:
    right = round(share * n)
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1


def test_no_images_is_an_error() -> None:
    with pytest.raises(DataError, match="no images"):
        measure(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), list("abc"))


def test_nan_probabilities_are_an_error_that_counts_them() -> None:
    p, labels = _case(20, 3, seed=3)
    p[4] = np.nan
    with pytest.raises(TenfoldError, match="1 of 20"):
        measure(p, labels, list("abc"))


def test_shapes_that_do_not_fit_are_refused() -> None:
    p, labels = _case(20, 3, seed=3)
    with pytest.raises(ValueError, match="20×4"):
        measure(p, labels, list("abcd"))
    with pytest.raises(ValueError, match="0 to 2"):
        measure(p, labels + 1, list("abc"))


def test_a_threshold_parts_the_known_from_the_unknown() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]], np.float32)
    labels = np.array([0, 1, 1, 1])
    plain = measure(p, labels, ("a", "b"))
    assert (plain.threshold, plain.known, plain.known_accuracy) == (None, None, None)
    assert with_threshold(plain, p, labels, None) == plain
    found = with_threshold(plain, p, labels, float(np.float32(0.6)))  # 0.6 itself is known
    assert (found.known, found.known_accuracy) == (0.75, pytest.approx(2 / 3))
    none = with_threshold(plain, p, labels, 1.0)
    assert (none.known, none.known_accuracy) == (0.0, None)
