"""A search's arithmetic of time, without workers; test_work.py runs whole searches."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tenfold import recipe as recipes
from tenfold.tuning import storage
from tenfold.tuning.records import Confirmed
from tenfold.tuning.search import CLOSING_SECONDS, Plan, Search

optuna = pytest.importorskip("optuna")


def search(time_limit: float | None = 1000.0) -> Search:
    """Two trials of 20 s each, the first of them the recipe."""
    study = optuna.create_study(direction="maximize")
    for number, value in enumerate((0.8, 0.9)):
        attrs: dict[str, Any] = {storage.SECONDS: 20.0, **({storage.ROLE: "recipe"} if number == 0 else {})}
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs=attrs))
    plan = Plan(recipes.load("quick"), None, time_limit, 3, False, time.time(), True)
    return Search(plan, study, cast(Any, SimpleNamespace(workers=1, members=[])), lambda update: None)


def test_a_confirmation_that_takes_longer_than_the_search_leaves_more_time_for_the_end() -> None:
    found = search()
    found.confirmed = [Confirmed(1, False, 0.9)]
    before = found.closing()
    assert before > CLOSING_SECONDS
    found._take(cast(Any, None), {"event": "confirmed", "id": "1/7", "value": 0.9, "seconds": 60.0, "epochs": 1.0,
                                  "kept": False})  # fmt: skip
    assert found.pace == 3.0 and found.closing() - CLOSING_SECONDS == pytest.approx(3 * (before - CLOSING_SECONDS))


def test_trials_leave_the_time_of_the_confirmation_and_never_more_than_their_share() -> None:
    assert search().kept() == pytest.approx(1.1 * 6 * 20.0 + search().closing())
    assert search(100.0).kept() == 45.0
    assert search(None).kept() == 0.0
