"""The order of a search: which worker does what, how long, and who is confirmed at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenfold.recipe import Recipe
from tenfold.tuning import records, space, storage
from tenfold.tuning.pool import Member, Pool
from tenfold.tuning.records import Confirmed, Running, Trial, Update

if TYPE_CHECKING:
    from optuna import Study

TICK_SECONDS = 0.5
LOOK_SECONDS = 5.0  # between two looks for trials of processes that died
SLACK = 1.1  # a training may take this much longer than the one before
CONFIRM_SHARE = 0.45  # of the time limit, at most, is kept for the confirmation
CLOSING_SECONDS, CLOSING_SHARE = 6.0, 0.1  # for the test split, the page and the workers' end; share of a training


@dataclass(frozen=True)
class Plan:
    """What was asked for. ``base`` is the recipe on this data with its space in ``tune``; ``since`` when the caller's
    wait began (``time.time()``); ``seeds`` of the confirmation, 0 for none."""

    base: Recipe
    trials: int | None
    time_limit: float | None
    seeds: int
    slower: bool
    since: float
    has_test: bool


@dataclass
class Search:
    """A search under way."""

    plan: Plan
    study: Study
    pool: Pool
    listen: Callable[[Update], None]
    phase: str = "start"
    confirmed: list[Confirmed] = field(default_factory=list)
    holders: dict[int, Member] = field(default_factory=dict)
    test: dict[str, Any] | None = None
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    pace: float = 1.0  # how many times as long the last confirmed training took as the same one in the search
    running: dict[Member, Running] = field(default_factory=dict)
    _started: float = field(default_factory=time.time)

    # ---- time ------------------------------------------------------------------------------------------------

    def left(self) -> float:
        """Seconds until the time limit."""
        limit = self.plan.time_limit
        return math.inf if limit is None else self.plan.since + limit - time.time()

    def kept(self) -> float:
        """Seconds of the limit that are not for trials: for two candidates' seeds, the test and the page."""
        if self.plan.time_limit is None:
            return 0.0
        if not self.plan.seeds:
            return min(2.0, self.plan.time_limit / 4)
        whole = records.confirmation_seconds(self.trials(), self.plan.seeds, self.pool.workers)
        most = CONFIRM_SHARE * self.plan.time_limit
        return most if whole is None else min(most, SLACK * whole + self.closing())

    def closing(self) -> float:
        """Seconds for the test split, the page and the workers' end: the more, the longer a training takes here."""
        return CLOSING_SECONDS + CLOSING_SHARE * self.pace * (records.recipe_seconds(self.trials()) or 0.0)

    def trials(self) -> list[Trial]:
        return [records.trial_of(t) for t in self.study.get_trials(deepcopy=False)]

    def estimate(self) -> float | None:
        """Seconds until the expected end, by the trials so far."""
        done = [t for t in self.trials() if t.state in ("complete", "pruned") and t.seconds]
        left = None if math.isinf(self.left()) else max(0.0, self.left())
        if self.phase != "search" or not done or self.plan.trials is None:
            return left
        each = sum(t.seconds or 0.0 for t in done) / len(done)
        missing = max(0, self.plan.trials - len(storage.counted(self.study.get_trials(deepcopy=False))))
        under_way = sum(1 - r.done for r in self.running.values())
        whole = records.recipe_seconds(self.trials()) or each
        confirm = 3 * self.plan.seeds * whole
        total = ((missing + under_way) * each + confirm) / self.pool.workers
        return total if left is None else min(left, total)

    def tell(self, ended: Trial | None = None, confirmed: Confirmed | None = None, note: str | None = None) -> None:
        left = self.left()
        if note:
            self.notes.append(note)
        self.listen(
            Update(
                phase=self.phase,
                trials=self.trials(),
                wanted=self.plan.trials,
                running=list(self.running.values()),
                elapsed=time.time() - self.plan.since,
                left=None if math.isinf(left) else left,
                estimate=self.estimate(),
                ended=ended,
                confirmed=confirmed,
                note=note,
            )
        )

    def _enter(self, phase: str) -> None:
        now = time.time()
        self.seconds[self.phase] = round(self.seconds.get(self.phase, 0.0) + now - self._started, 3)
        self.phase, self._started = phase, now

    # ---- the trials ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Trials, confirmation, test; after each, less time is left."""
        self._enter("search")
        self._search()
        if self.plan.seeds:
            self._enter("confirm")
            self._confirm()
            self._enter("test")
            self._test()
        self._enter("end")

    def _search(self) -> None:
        looked = time.monotonic()
        while True:
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                storage.requeue_dead(self.study)
            over = self.left() <= self.kept()
            more = not over and self._wanted() > 0
            if more:
                for member in self.pool.members:
                    if member.idle and self._wanted() > 0:
                        self.running[member] = Running("…")
                        member.tell({"do": "trial", "slower": self.plan.slower})
            if not more and not self.running:
                return
            if over:
                for member in self.running:
                    member.stop()
            self._hear()

    def _wanted(self) -> float:
        """Trials that are still to be begun."""
        if self.plan.trials is None:
            return math.inf
        begun = len(storage.counted(self.study.get_trials(deepcopy=False)))
        asked = sum(m.job is not None and m.number is None for m in self.pool.members)
        return self.plan.trials - begun - asked

    def _hear(self) -> None:
        """The next event of a worker; time passes where there is none."""
        heard = self.pool.hear(TICK_SECONDS)
        if heard is None:
            self.tell()
            return
        member, told = heard
        event = told["event"]
        if event == "ready":
            self.device, self.versions = told["label"], told["versions"]
        elif event == "trial":
            self.running[member] = Running(f"trial {told['number']}")
        elif event in ("step", "epoch") and member in self.running:
            self.running[member].done = told["done"]
            self.running[member].value = told.get("value", self.running[member].value)
        elif event == "done":
            self.running.pop(member, None)
            found = next(t for t in self.trials() if t.number == told["number"])
            self.tell(ended=found)
            return
        elif event in ("confirmed", "unconfirmed"):
            self.running.pop(member, None)
            self._take(member, told)
            return
        elif event in ("tested", "untested"):
            self.running.pop(member, None)
            if event == "tested" and told["n"]:
                self.test = {"accuracy": told["right"] / told["n"], "n": told["n"]}
        elif event == "died":
            self._died(member, told["why"])
            return
        self.tell()

    def _died(self, member: Member, why: str) -> None:
        self.running.pop(member, None)
        self.holders = {n: m for n, m in self.holders.items() if m is not member}
        if member.number is not None:
            trials = self.study.get_trials(deepcopy=False)
            storage.give_back(self.study, next(t for t in trials if t.number == member.number), why)
        self.tell(note=f"A worker was replaced: {why}.")

    # ---- the confirmation ------------------------------------------------------------------------------------

    def _confirm(self) -> None:
        """The candidates with other seeds than the search's, in turn: seed by seed, as far as time goes."""
        found = records.candidates(self.trials())
        whole = max((t.seconds or 0.0 for t in found[:2]), default=0.0)
        if self.left() < SLACK * whole * len(found) * self.plan.seeds / self.pool.workers + self.closing():
            found = found[:2]
        self.confirmed = [Confirmed(t.number, t.recipe, t.value or 0.0) for t in found]
        seeds = [self.plan.base.seed + 1 + i for i in range(self.plan.seeds)]
        tasks = [(seed, trial) for seed in seeds for trial in found]
        while tasks or self.running:
            for member in self.pool.members:
                if member.idle and tasks:
                    seed, trial = tasks.pop(0)
                    if self.left() < SLACK * self.pace * (trial.seconds or 0.0) + self.closing():
                        tasks = []
                        break
                    self.running[member] = Running(f"{trial}, seed {seed}")
                    keep = seed == seeds[0] and self.plan.has_test
                    member.tell({"do": "confirm", "id": f"{trial.number}/{seed}", "seed": seed, "keep": keep,
                                 "changes": self.changes(trial)})  # fmt: skip
            if self.left() < self.closing() / 2:
                for member in self.running:
                    member.stop()
            if tasks or self.running:
                self._hear()

    def changes(self, trial: Trial) -> dict[str, Any]:
        """A trial's fields, with the passes that it made where they were fewer than the recipe's for what they cost."""
        base = self.plan.base
        changed: dict[str, Any] = {} if trial.recipe else space.changes(trial.params, base.tune or {})
        if trial.ended == "finished" and trial.epochs and trial.epochs < base.epochs - 0.01:
            changed["epochs"] = round(trial.epochs, 2)
        return changed

    def _take(self, member: Member, told: Mapping[str, Any]) -> None:
        number, _, seed = told["id"].partition("/")
        one = next(c for c in self.confirmed if c.number == int(number))
        if told["event"] == "confirmed":
            one.accuracies[int(seed)] = told["value"]
            one.seconds[int(seed)] = told["seconds"]
            one.epochs = told["epochs"]
            before = next((t.seconds for t in self.trials() if t.number == one.number), None)
            self.pace = max(1.0, told["seconds"] / before) if before else self.pace
            if told["kept"]:
                self.holders[one.number] = member
            self.tell(confirmed=one)
        else:
            one.why = told["why"] or one.why
            self.tell(note=f"{one} could not be trained with seed {seed}: {told['why']}" if told["why"] else None)

    def _test(self) -> None:
        """The test split, read once: with the weights of the winner's first confirmed training."""
        won = records.winner(self.confirmed, self.plan.slower)
        member = None if won is None else self.holders.get(won.number)
        if won is None or member is None or not member.idle:
            return
        trial = next(t for t in self.trials() if t.number == won.number)
        reads = self.study.user_attrs.get(storage.TEST_READS, 0)
        self.study.set_user_attr(storage.TEST_READS, reads + 1)
        seed = min(won.accuracies)
        self.running[member] = Running("test split")
        member.tell({"do": "test", "id": f"{won.number}/{seed}", "changes": self.changes(trial)})
        while self.running:
            self._hear()
