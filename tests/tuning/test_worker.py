from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold.engines.base import EpochEnd, FitResult, Started
from tenfold.errors import TrainingError
from tenfold.tuning import records, storage
from tenfold.tuning.worker import Inbox, Worker

optuna = pytest.importorskip("optuna", reason="needs tenfold[tune]")


class FakeGround:
    """Trains nothing: reports the epochs it was given, asks after each whether to stop, or raises."""

    def __init__(self, accuracies: list[float], error: Exception | None = None) -> None:
        self.accuracies, self.error = accuracies, error
        self.slower: list[bool] = []

    def suggest(self, trial: Any) -> dict[str, Any]:
        return {"optimizer.lr": trial.suggest_float("optimizer.lr", 0, 1)}

    def train(self, changes: Any, watch: Any, *, slower: bool = True, seed: int | None = None) -> FitResult:
        self.slower.append(slower)
        watch.report(Started(len(self.accuracies), 1, 0, 1, SimpleNamespace(), "fp32", "device"))  # type: ignore[arg-type]
        history: list[EpochEnd] = []
        ended: Any = "finished"
        for epoch, accuracy in enumerate(self.accuracies, 1):
            event = EpochEnd(epoch, epoch, 0.0, 0.0, 0.0, accuracy, 0.1, 1.0, 1.0, 0)
            history.append(event)
            watch.report(event)
            if watch.stop() is not None and epoch < len(self.accuracies):
                ended = "interrupt"
                break
        if self.error is not None:
            raise self.error
        return FitResult({}, ended, len(history), len(history), 1.5, 10, 0, "fp32", history)


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    content = {"data": "d", "engine": "torch", "recipe": {}, "space": {}}
    with storage.quiet():
        study = storage.create(storage.open_storage(str(tmp_path / "j")), "s", content, {"optimizer.lr": 0.5})
        study.pruner = storage.pruner(3)
        made = object.__new__(Worker)
        made.study, made.inbox, made.kept = study, Inbox(), {}
        made.said = []  # type: ignore[attr-defined]
        made.say = lambda **told: made.said.append(told)  # type: ignore[attr-defined]
        yield made


def trained(worker: Any, accuracies: list[float], error: Exception | None = None) -> records.Trial:
    worker.ground = FakeGround(accuracies, error)
    worker._trial({"do": "trial", "slower": False})
    return records.trial_of(worker.study.get_trials()[-1])


def test_a_trial_is_told_and_kept_with_its_curve(worker: Any) -> None:
    found = trained(worker, [0.1, 0.2, 0.3])
    assert (found.state, found.value, found.curve) == ("complete", 0.3, {1: 0.1, 2: 0.2, 3: 0.3})
    assert found.recipe and found.params == {"optimizer.lr": 0.5}
    assert (found.seconds, found.epochs, found.ended) == (1.5, 3, "finished")
    assert found.where == storage.here()
    assert [told["event"] for told in worker.said] == ["trial", "epoch", "epoch", "epoch", "done"]
    assert worker.said[-1] == {"event": "done", "number": 0, "state": "complete", "value": 0.3}
    assert worker.ground.slower == [True]  # the recipe itself makes all its passes


def test_a_worse_trial_is_pruned_by_its_epochs_and_the_recipe_never_is(worker: Any) -> None:
    assert trained(worker, [0.1, 0.2, 0.3]).recipe
    found = [trained(worker, [accuracy, 0.9, 0.9]) for accuracy in (0.9, 0.1, 0.1, 0.1, 0.1, 0.1)]
    pruned = [t for t in found if t.state == "pruned"]
    assert pruned and all(t.curve == {1: 0.1} and t.value == 0.1 and t.ended == "pruned" for t in pruned)
    assert worker.ground.slower == [False]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TrainingError("The loss is no longer a number.", "hint"), "The loss is no longer a number."),
        (RuntimeError("CUDA out of memory.\nTried to"), "RuntimeError: CUDA out of memory."),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_trial_that_fails_is_recorded_and_the_next_goes_on(worker: Any, error: Exception, why: str) -> None:
    found = trained(worker, [0.1], error)
    assert (found.state, found.why) == ("failed", why)
    assert worker.said[-1]["state"] == "failed"
    assert len(storage.counted(worker.study.get_trials())) == 1
    assert trained(worker, [0.5]).state == "complete"


def test_a_trial_that_is_stopped_from_outside_does_not_count(worker: Any) -> None:
    worker.inbox.stopping.set()
    found = trained(worker, [0.1, 0.2])
    assert (found.state, found.why) == ("stopped", None)
    assert worker.said[-1]["state"] == "stopped"
    assert storage.counted(worker.study.get_trials()) == []


def test_a_confirmation_is_no_trial_and_its_failure_is_told(worker: Any) -> None:
    worker.ground = FakeGround([0.7])
    worker._confirm({"do": "confirm", "id": "3/1", "seed": 1, "keep": True, "changes": {}})
    assert worker.said[-1]["event"] == "confirmed" and worker.said[-1]["value"] == 0.7
    assert set(worker.kept) == {"3/1"}
    worker.ground = FakeGround([0.7], RuntimeError("no"))
    worker._confirm({"do": "confirm", "id": "3/2", "seed": 2, "keep": False, "changes": {}})
    assert worker.said[-1] == {"event": "unconfirmed", "id": "3/2", "why": "RuntimeError: no"}
    assert [t.state.name for t in worker.study.get_trials()] == ["WAITING"]
