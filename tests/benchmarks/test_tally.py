from __future__ import annotations

import pytest
import tally
from race_records import OTHER, OWN, record


def test_figures() -> None:
    found = tally.figures("own", "Own", OWN, [0.9, 0.93])
    assert found["n"] == 3
    assert found["accuracy"] == pytest.approx({"mean": 0.92, "median": 0.92, "min": 0.90, "max": 0.94, "std": 0.02})
    assert found["seconds"]["median"] == 12.0
    assert found["parts"]["train"]["median"] == 6.0
    assert found["targets"] == pytest.approx({"0.9": 1.0, "0.93": 1 / 3})
    assert found["peak_memory_bytes"] == 7


def test_one_run_has_no_deviation_and_none_has_no_figure() -> None:
    assert tally.figures("own", "Own", OWN[:1], [])["accuracy"]["std"] == 0.0
    empty = tally.figures("own", "Own", [record("own", 0, None, 3.0, exit_code=1)], [0.5])
    assert empty["n"] == 0 and empty["accuracy"] is None and empty["targets"] == {"0.5": None}
    assert len(empty["failed"]) == 1


def test_a_failed_run_is_in_no_figure() -> None:
    found = tally.figures("own", "Own", [*OWN, record("own", 3, 0.1, 1.0, exit_code=-9)], [0.9])
    assert found["n"] == 3 and found["seconds"]["min"] == 10.0 and found["accuracy"]["min"] == 0.90


def test_a_comparison_is_of_medians_and_of_the_reference_s_best() -> None:
    pair = tally.compare(tally.figures("own", "Own", OWN, []), tally.figures("other", "Other", OTHER, []))
    assert pair is not None
    assert pair["times_faster"] == pytest.approx(122 / 12)
    assert pair["times_faster_at_least"] == pytest.approx(100 / 20)
    assert pair["times_faster_at_most"] == pytest.approx(144 / 10)
    assert pair["reference_best_accuracy"] == 0.915  # its best epoch of its best run
    assert pair["mean_is_at_least_best"] is True
    assert pair["lowest_is_at_least_best"] is False


def test_whoever_has_no_run_is_compared_with_nobody() -> None:
    none = tally.figures("none", "None", [], [])
    assert tally.compare(none, tally.figures("other", "Other", OTHER, [])) is None
    summary = tally.summarise(
        [("own", "Own"), ("other", "Other"), ("none", "None")], OWN + OTHER, [], ["other", "none"]
    )
    assert [(p["contestant"], p["reference"]) for p in summary["comparisons"]] == [("own", "other")]
