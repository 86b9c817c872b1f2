from __future__ import annotations

from typing import Any

from tenfold.tuning import records
from tenfold.tuning.records import Confirmed, Trial


def trial(number: int, value: float | None, state: str = "complete", **changes: Any) -> Trial:
    fields: dict[str, Any] = {
        "params": {"x": 0.1 * number}, "curve": {1: value or 0.0}, "seconds": 10.0, "epochs": 1.0, "ended": "finished",
        "why": None, "recipe": number == 0, "where": None,
    }  # fmt: skip
    return Trial(number, state, value, **{**fields, **changes})  # type: ignore[arg-type]


def test_the_best_the_recipe_and_what_is_no_worse_are_confirmed() -> None:
    trials = [trial(0, 0.8), trial(1, 0.9), trial(2, 0.7), trial(3, 0.85), trial(4, 0.99, "pruned")]
    assert [t.number for t in records.candidates(trials)] == [1, 0, 3]
    assert [t.number for t in records.candidates(trials[:3])] == [1, 0]
    assert [t.number for t in records.candidates([trial(0, None, "failed"), *trials[1:3]])] == [1, 2]
    assert records.candidates([]) == []


def test_the_winner_has_the_highest_mean_over_common_seeds_and_a_tie_is_the_recipes() -> None:
    one = Confirmed(1, False, 0.95, {1: 0.9, 2: 0.8, 3: 0.1}, {1: 5.0, 2: 5.0, 3: 5.0})
    own = Confirmed(0, True, 0.8, {1: 0.85, 2: 0.85}, {1: 5.0, 2: 5.0})
    won = records.winner([one, own], slower=False)
    assert won is not None and won.recipe and won.accuracies == {1: 0.85, 2: 0.85}
    one.accuracies[2] = 0.9
    won = records.winner([one, own, Confirmed(2, False, 0.9)], slower=False)
    assert won is not None and won.number == 1 and won.span == (0.9, 0.9)
    assert records.winner([Confirmed(1, False, 0.9)], slower=False) is None


def test_who_was_worse_than_the_recipe_does_not_win_because_there_was_no_time_for_it() -> None:
    one = Confirmed(1, False, 0.7, {1: 0.7}, {1: 5.0})
    assert records.winner([one, Confirmed(0, True, 0.8)], slower=False) is None
    assert records.winner([one, Confirmed(0, True, 0.6)], slower=False) == one


def test_who_trains_longer_than_the_recipe_does_not_win_unless_allowed() -> None:
    one = Confirmed(1, False, 0.95, {1: 0.9}, {1: 14.0})
    own = Confirmed(0, True, 0.8, {1: 0.8}, {1: 10.0})
    assert [c.number for c in records.too_slow([one, own])] == [1]
    assert records.winner([one, own], slower=False).number == 0  # type: ignore[union-attr]
    assert records.winner([one, own], slower=True).number == 1  # type: ignore[union-attr]
    assert records.too_slow([one]) == []


def test_what_is_clear_needs_two_seeds_that_do_not_overlap() -> None:
    own = Confirmed(0, True, 0.8, {1: 0.8, 2: 0.82})
    assert records.clearly(Confirmed(1, False, 0.9, {1: 0.83, 2: 0.9}), own)
    assert not records.clearly(Confirmed(1, False, 0.9, {1: 0.81, 2: 0.9}), own)
    assert not records.clearly(Confirmed(1, False, 0.9, {1: 0.95}), own)


def test_the_time_of_the_confirmation_is_that_of_who_is_confirmed() -> None:
    own, slow = trial(0, 0.8, seconds=10.0), trial(1, 0.9, seconds=25.0)
    assert records.confirmation_seconds([slow], 3, 1) is None  # the recipe has not been trained yet
    assert records.confirmation_seconds([own], 3, 1) == 60.0
    assert records.confirmation_seconds([own, slow], 3, 1) == 105.0
    assert records.confirmation_seconds([own, slow], 3, 2) == 75.0
