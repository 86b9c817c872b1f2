from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tenfold.errors import CallError, MissingExtraError, RunError, UnsupportedError
from tenfold.tuning import storage

optuna = pytest.importorskip("optuna", reason="needs tenfold[tune]")
from optuna.trial import TrialState  # noqa: E402

CONTENT = {"data": "d", "engine": "torch", "recipe": {"name": "quick"}, "space": {"x": {"low": 0.0, "high": 1.0}}}


@pytest.fixture
def study(tmp_path: Path) -> Any:
    with storage.quiet():
        yield storage.create(storage.open_storage(str(tmp_path / "j")), "s", CONTENT, {"x": 0.5})


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.address("some/file") == "some/file"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert storage.address("postgres://u:p@h/d") == "postgresql+psycopg://u:p@h/d"
    assert storage.address("mysql://h/d") == "mysql+pymysql://h/d"
    assert storage.address("postgresql+psycopg2://h/d") == "postgresql+psycopg2://h/d"
    with pytest.raises(UnsupportedError, match="sqlite:// is no storage"):
        storage.address("sqlite:///x.db")


def test_a_driver_or_optuna_that_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CallError, match=r"pip install 'psycopg\[binary\]'"):
        storage.address("postgresql://h/d")
    with pytest.raises(CallError, match="pip install 'pymysql'"):
        storage.address("mysql://h/d")
    with pytest.raises(MissingExtraError, match=r"tenfold\[tune\]"):
        storage.require()


def test_passwords_are_not_shown() -> None:
    assert storage.without_password("postgresql+psycopg://u:se/cr:et@h:5432/d") == "postgresql+psycopg://u:***@h:5432/d"
    assert storage.without_password("postgresql://u@h/d") == "postgresql://u@h/d"


def test_a_journal_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="can't be used"):
        storage.open_storage(str(tmp_path / "nowhere" / "j"))


def test_a_study_begins_with_the_recipe_and_goes_on_with_the_same_only(study: Any, tmp_path: Path) -> None:
    first = study.ask()
    assert first.user_attrs[storage.ROLE] == "recipe" and first.suggest_float("x", 0, 1) == 0.5
    with storage.quiet():
        again = storage.create(storage.open_storage(str(tmp_path / "j")), "s", CONTENT, {"x": 0.5})
        assert len(again.get_trials()) == 1
        with pytest.raises(CallError, match="another data"):
            storage.create(storage.open_storage(str(tmp_path / "j")), "s", {**CONTENT, "data": "e"}, {"x": 0.5})


def test_a_trial_whose_process_died_is_tried_again_once(study: Any) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for again in (True, False):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr(storage.WHERE, f"{socket.gethostname()}:{gone.pid}")
        assert storage.requeue_dead(study) == 1
        waiting = study.get_trials(states=(TrialState.WAITING,))
        assert len(waiting) == again
        assert all(t.params == {"x": 0.5} and t.user_attrs[storage.ROLE] == "recipe" for t in waiting)
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert [storage.WHY in t.user_attrs for t in failed] == [False, True]
    assert len(storage.counted(study.get_trials())) == 1  # the first try was nobody's fault


def test_a_trial_of_a_living_process_or_of_another_machine_is_left_alone(study: Any) -> None:
    for where in (storage.here(), "elsewhere:1"):
        study.ask().set_user_attr(storage.WHERE, where)
    assert storage.here() == f"{socket.gethostname()}:{os.getpid()}"
    assert storage.requeue_dead(study) == 0
    assert len(study.get_trials(states=(TrialState.RUNNING,))) == 2


def test_hyperband_keeps_the_better_third() -> None:
    with storage.quiet():
        study = optuna.create_study(direction="maximize", pruner=storage.pruner(3), study_name="s")
        cut = []
        for value in (0.5, 0.9, 0.1, 0.2, 0.95, 0.3, 0.3, 0.3):
            trial = study.ask()
            trial.report(value, 1)
            cut.append(trial.should_prune())
            study.tell(trial, state=TrialState.PRUNED) if cut[-1] else study.tell(trial, value)
    assert any(cut) and not cut[1] and not cut[4]
    assert isinstance(storage.pruner(1), optuna.pruners.NopPruner)
