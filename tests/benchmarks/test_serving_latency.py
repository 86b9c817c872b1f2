"""The arithmetic of a load."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latency import Tally, arrivals, kept_up, percentile


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    ordered = sorted(values)
    enough = [v for v in ordered if 100 * sum(other <= v for other in ordered) >= percent * len(ordered)]
    assert percentile(ordered, percent) == enough[0]


def test_percentiles_of_a_hundred_and_of_none() -> None:
    ordered = [float(i) for i in range(1, 101)]
    assert [percentile(ordered, p) for p in (50, 90, 99, 100)] == [50, 90, 99, 100]
    with pytest.raises(ValueError):
        percentile([], 50)


def test_requests_are_due_at_random_and_the_same_for_a_seed() -> None:
    due = arrivals(500, 40, seed=3)
    assert due == arrivals(500, 40, seed=3) != arrivals(500, 40, seed=4)
    assert due == sorted(due) and due[0] >= 0 and due[-1] < 40
    assert len(due) == pytest.approx(20_000, rel=0.03)  # ±0.7 % is one standard deviation
    gaps = [b - a for a, b in itertools.pairwise(due)]
    assert statistics.pstdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.05)  # of an exponential distribution


def test_a_latency_counts_from_when_a_request_was_due() -> None:
    """A server that answers in 10 ms but stalls for a second, asked 100 times a second for ten seconds."""
    closed, opened = Tally(), Tally()
    for i in range(1000):
        due = i / 100
        done = max(due, 5.0 + 1.0 if 5.0 <= due < 6.0 else due) + 0.01
        opened.answered(200, due, done)
        if not 5.0 < due < 6.0:  # who waits for the answer sends nothing during the stall
            closed.answered(200, due, done)
    assert closed.figures(10)["latency_ms"]["p99"] == 10
    assert opened.figures(10)["latency_ms"] == {"p50": 10, "p90": 10, "p99": 910, "max": 1010}


def test_what_is_counted() -> None:
    tally = Tally(window_ends=2.0)
    tally.answered(200, 0.0, 0.5)
    tally.answered(200, 1.9, 2.4)  # answered after the end: a latency, but none of the window's
    tally.answered(503, 0.0, 0.001)
    tally.failed("timeout")
    tally.unanswered(1.0, 5.0)
    found = tally.figures(2)
    assert (found["requests"], found["ok"], found["in_window"], found["requests_per_second"]) == (5, 2, 1, 0.5)
    assert found["by_status"] == {"200": 2, "503": 1} and found["errors"] == {"timeout": 1, "unanswered": 1}
    assert found["latency_ms"] == {"p50": 500, "p90": 4000, "p99": 4000, "max": 4000}  # a quick refusal is no answer


def test_without_an_answer_there_is_no_latency() -> None:
    tally = Tally()
    tally.answered(503, 0, 1)
    assert set(tally.figures(1)["latency_ms"].values()) == {None}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"ok": 989}, False),
        ({"wrong": 20}, False),
        ({"in_window": 940}, False),  # the queue grew until the load ended
        ({"latency_ms": {"p99": 1001}}, False),
        ({"latency_ms": {"p99": None}}, False),
    ],
)
def test_whether_a_server_keeps_up(change: dict[str, Any], kept: bool) -> None:
    good = {"requests": 1000, "ok": 995, "wrong": 0, "in_window": 960, "latency_ms": {"p99": 200}}
    assert kept_up({**good, **change}) is kept
