"""A process that trains one trial after another: ``python -m tenfold.tuning.worker``.

It imports the framework and reads the data once. It reads jobs from standard input, a line of JSON each, and answers
with lines of JSON on what was its standard output; what frameworks print goes to standard error. A ``stop`` is heard
while a trial is under way. It ends with the process that started it, however that one ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.errors import TenfoldError
from tenfold.tuning import storage
from tenfold.tuning.records import trial_of
from tenfold.tuning.training import Ground, Watch

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

    from tenfold.engines.base import FitResult


@dataclass(frozen=True)
class Setup:
    """The first line a worker reads. ``cores`` are those it is bound to, none where it may use all."""

    storage: str
    study: str
    recipe: str
    data: str
    engine: str
    device: str
    passes: int
    seed: int
    cores: tuple[int, ...] = ()

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class _Stopped(Exception):
    """The trial was ended from outside: by the time limit, or by who started all this."""


class _Failed(Exception):
    """The trial can't be trained; its attributes say why."""


class Inbox:
    """Jobs in the order they came, read by a thread so that a ``stop`` is heard at once."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.stopping = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in sys.stdin:
                job = json.loads(line)
                if job["do"] == "stop":
                    self.stopping.set()
                else:  # it comes when there is no other: a stop before it was meant for that one
                    self.stopping.clear()
                    self.jobs.put(job)
        self.stopping.set()  # the parent has gone, or wants no more
        self.jobs.put(None)


class Worker:
    def __init__(self, setup: Setup, inbox: Inbox, say: Any) -> None:
        self.setup, self.inbox, self.say = setup, inbox, say
        self.ground = Ground.open(Path(setup.recipe), setup.data, setup.engine, setup.device)
        self.study: Study = storage.open_study(setup.storage, setup.study, setup.passes, setup.seed)
        self.kept: dict[str, FitResult] = {}

    def work(self) -> None:
        self.say(event="ready", device=self.ground.device.name, label=self.ground.device.label,
                 versions=self.ground.engine.versions())  # fmt: skip
        does = {"trial": self._trial, "confirm": self._confirm, "test": self._test}
        while (job := self.inbox.jobs.get()) is not None:
            does[job["do"]](job)
            gc.collect()

    # ---- a trial of the study ----------------------------------------------------------------------------------

    def _trial(self, job: Mapping[str, Any]) -> None:
        numbers = []

        def objective(trial: Trial) -> float:
            numbers.append(trial.number)
            return self._objective(trial, job["slower"])

        self.study.optimize(objective, n_trials=1, catch=(_Stopped, _Failed))
        found = self.study.get_trials(deepcopy=False)[numbers[0]]
        self.say(event="done", number=found.number, state=trial_of(found).state, value=found.value)

    def _objective(self, trial: Trial, slower: bool) -> float:
        from optuna import TrialPruned

        trial.set_user_attr(storage.WHERE, storage.here())
        changes = self.ground.suggest(trial)
        self.say(event="trial", number=trial.number, params=trial.params)
        own = trial.user_attrs.get(storage.ROLE) == "recipe"

        def prune(epoch: int, accuracy: float) -> bool:
            trial.report(accuracy, epoch)
            return not own and trial.should_prune()

        watch = Watch(lambda **told: self.say(number=trial.number, **told), self.inbox.stopping.is_set, prune)
        try:
            fitted = self.ground.train(changes, watch, slower=slower or own)
        except Exception as error:  # a network that can't be, memory that ran out, a loss that is no number
            if watch.reason == "pruned":
                raise TrialPruned from None
            if watch.reason == "stopped":
                raise self._stopped(trial) from None
            trial.set_user_attr(storage.WHY, _sentence(error))
            raise _Failed from None
        trial.set_user_attr(storage.SECONDS, round(fitted.seconds, 3))
        trial.set_user_attr(storage.EPOCHS, round(fitted.epochs, 4))
        trial.set_user_attr(storage.ENDED, fitted.ended if fitted.ended != "interrupt" else watch.reason)
        if fitted.ended == "interrupt":
            raise TrialPruned if watch.reason == "pruned" else self._stopped(trial)
        return watch.accuracy(fitted)

    def _stopped(self, trial: Trial) -> _Stopped:
        trial.set_user_attr(storage.STOPPED, True)
        return _Stopped()

    # ---- after the search --------------------------------------------------------------------------------------

    def _confirm(self, job: Mapping[str, Any]) -> None:
        """Trains a candidate once more with another seed; the weights of a candidate's first are kept for the test."""
        watch = Watch(lambda **told: self.say(id=job["id"], **told), self.inbox.stopping.is_set)
        try:
            fitted = self.ground.train(job["changes"], watch, seed=job["seed"])
        except Exception as error:
            self.say(event="unconfirmed", id=job["id"], why=_sentence(error))
            return
        if fitted.ended == "interrupt":
            self.say(event="unconfirmed", id=job["id"], why=None)
            return
        if job["keep"]:
            self.kept[job["id"]] = fitted
        self.say(event="confirmed", id=job["id"], value=watch.accuracy(fitted), seconds=round(fitted.seconds, 3),
                 epochs=round(fitted.epochs, 4), kept=job["keep"])  # fmt: skip

    def _test(self, job: Mapping[str, Any]) -> None:
        try:
            right, images = self.ground.test(job["changes"], self.kept[job["id"]].weights)
        except Exception as error:
            self.say(event="untested", why=_sentence(error))
            return
        self.say(event="tested", right=right, n=images)


def _sentence(error: Exception) -> str:
    """An error in a line: tenfold's own as it is, another's with its kind."""
    text = error.message if isinstance(error, TenfoldError) else f"{type(error).__name__}: {error}".rstrip(": ")
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they reach the whole group; the parent decides, or its end does
    # frameworks print what they like on standard output: it is kept for the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def say(**told: Any) -> None:
        with lock, contextlib.suppress(BrokenPipeError):  # the parent has gone: the inbox hears it too
            answers.write(json.dumps(told) + "\n")
            answers.flush()

    setup = Setup(**json.loads(sys.stdin.readline()))
    if setup.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, setup.cores)
    inbox = Inbox()
    inbox.start()
    try:
        with storage.quiet():
            Worker(setup, inbox, say).work()
    except TenfoldError as error:
        say(event="error", kind=type(error).__name__, message=error.message, hint=error.hint)
        sys.exit(1)
    finally:
        with contextlib.suppress(BrokenPipeError):
            answers.close()


if __name__ == "__main__":
    main()
