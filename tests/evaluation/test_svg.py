from __future__ import annotations

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.evaluation import svg
from tenfold.evaluation.calibration import reliability
from tenfold.evaluation.metrics import Evaluation, measure

HOSTILE = "<script>alert('x')</script> & \"$\\frac\" 猫"


def _evaluation(k: int, n: int = 400) -> Evaluation:
    rng = np.random.default_rng(k)
    labels = rng.integers(0, k, n)
    p = rng.random((n, k)) ** 4
    p[np.arange(n), labels] += 1.5 * rng.random(n)
    p /= p.sum(1, keepdims=True)
    return measure(p.astype(np.float32), labels, [f"{HOSTILE} {i}" for i in range(k)])


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_hold_the_range_and_are_few(low: float, span: float) -> None:
    marks = svg.ticks(low, low + span)
    hair = 1e-6 * max(1, abs(low), span)
    assert marks[0] <= low + hair and marks[-1] >= low + span - hair
    assert 2 <= len(marks) <= 8
    assert all(b > a for a, b in itertools.pairwise(marks))


@pytest.mark.parametrize("k", [2, 10, 24, 25, 100, 140])
def test_matrix_is_well_formed_and_names_are_text(k: int) -> None:
    found = ElementTree.fromstring(svg.matrix(_evaluation(k)).replace(" href=", " data="))
    assert not found.findall(".//script")
    named = sum(HOSTILE in (t.text or "") for t in found.iter("title"))
    assert named >= 2 * k if k <= svg.NAMED else named == 0


def test_matrix_has_every_count() -> None:
    e = _evaluation(10)
    found = ElementTree.fromstring(svg.matrix(e))
    counts = [t.text for t in found.iter("text") if t.get("class", "").startswith("sub")]
    assert counts == [str(c) for c in e.confusion.ravel() if c]


def test_heat_tells_right_from_wrong_and_shows_one_in_a_hundred() -> None:
    confusion = np.diag([100, 90, 0])
    confusion[0, 0], confusion[0, 1] = 99, 1
    picture = svg.heat(confusion)
    assert picture.shape == (3, 3, 4)
    assert tuple(picture[0, 0, :3]) == svg.RIGHT and tuple(picture[0, 1, :3]) == svg.WRONG
    assert picture[0, 1, 3] > 30 and picture[1, 0, 3] == 0
    assert picture[2, :, 3].max() == 0  # a class without images


@pytest.mark.parametrize("values", [[0.5], [0.4, None, 0.6], [None, None], [1.0, 1.0, 1.0], [0.1, float("nan"), 0.2]])
def test_lines_stand_gaps_and_few_points(values: list[float | None]) -> None:
    x = [float(i + 1) for i in range(len(values))]
    drawn = svg.lines("accuracy", x, [svg.Series("a", "s0", values)], show=lambda v: f"{v:.2f}", highest=1.0)
    root = ElementTree.fromstring(drawn)
    real = [v for v in values if v is not None and v == v]
    assert len(list(root.iter("circle"))) == len(real)
    assert "nan" not in drawn


def test_lines_stay_inside_for_a_bounded_axis() -> None:
    drawn = svg.lines("accuracy", [1.0, 2.0], [svg.Series("a", "s0", [0.99, 1.0])], highest=1.0)
    for circle in ElementTree.fromstring(drawn).iter("circle"):
        assert 0 < float(circle.get("cy", "0")) < 228 and 0 < float(circle.get("cx", "0")) < 310


def test_many_epochs_have_no_dots() -> None:
    x = [float(i) for i in range(1, 301)]
    drawn = svg.lines("loss", x, [svg.Series("a", "s0", [1 / v for v in x])])
    assert "<circle" not in drawn and len(drawn) < 12_000


def test_reliability_draws_a_mark_for_each_bin() -> None:
    e = _evaluation(5)
    root = ElementTree.fromstring(svg.reliability(e.reliability))
    assert len([p for p in root.iter("path") if p.get("class") == "said"]) == len(e.reliability)
    ElementTree.fromstring(svg.reliability(reliability(np.array([[1.0, 0.0]]), np.array([0]))))


def test_bar_without_a_value_is_empty() -> None:
    assert svg.bar(None, None) == ""
    assert 'width="50.0"' in svg.bar(0.5, (0.4, 0.6))


def test_shorten_keeps_both_ends() -> None:
    assert svg.shorten("abcdefghij", 10) == "abcdefghij"
    assert svg.shorten("abcdefghijk", 6) == "abc…jk"
    assert len(svg.shorten("x" * 500, 18)) == 18
