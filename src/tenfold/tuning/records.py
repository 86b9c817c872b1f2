"""What a search found: plain values, and how they are had from Optuna's trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tenfold.tuning import storage

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MARGIN = 1.25  # a candidate that takes this much longer than the recipe does not win: it would by training more

State = Literal["complete", "pruned", "failed", "stopped", "running", "waiting"]


@dataclass(frozen=True)
class Trial:
    """One trial. ``value`` is its validation accuracy: at its end, or where it was pruned at the last epoch.

    curve     validation accuracy by epoch
    recipe    it is the recipe itself, with which the search began
    seconds   of training, validation included
    ended     why its training ended: finished, time_limit, patience, pruned, stopped
    """

    number: int
    state: State
    value: float | None
    params: Mapping[str, Any]
    curve: Mapping[int, float]
    seconds: float | None
    epochs: float | None
    ended: str | None
    why: str | None
    recipe: bool
    where: str | None

    def __str__(self) -> str:
        return "the recipe" if self.recipe else f"trial {self.number}"


def trial_of(found: FrozenTrial) -> Trial:
    attributes = found.user_attrs
    state = found.state.name.lower()
    if state == "fail":
        state = "failed" if storage.WHY in attributes else "stopped"
    curve = {int(epoch): float(value) for epoch, value in sorted(found.intermediate_values.items())}
    value = found.value if state == "complete" else curve[max(curve)] if curve else None
    return Trial(
        number=found.number,
        state=state,  # type: ignore[arg-type]
        value=value,
        params=dict(found.params),
        curve=curve,
        seconds=attributes.get(storage.SECONDS),
        epochs=attributes.get(storage.EPOCHS),
        ended=attributes.get(storage.ENDED),
        why=attributes.get(storage.WHY),
        recipe=attributes.get(storage.ROLE) == "recipe",
        where=attributes.get(storage.WHERE),
    )


def completed(trials: Sequence[Trial]) -> list[Trial]:
    """Those trained to their end, the best first."""
    done = [t for t in trials if t.state == "complete" and t.value is not None]
    return sorted(done, key=lambda t: (-(t.value or 0.0), t.number))


def recipe_seconds(trials: Sequence[Trial]) -> float | None:
    """Seconds that the recipe itself trained, None where it has not yet."""
    return next((t.seconds for t in trials if t.recipe and t.state == "complete"), None)


def candidates(trials: Sequence[Trial], most: int = 3) -> list[Trial]:
    """Who is to be confirmed: the best trial, the recipe itself, then trials that are no worse than it."""
    done = completed(trials)
    own = [t for t in done if t.recipe][:1]
    others = [t for t in done if not t.recipe]
    more = [t for t in others[1:] if not own or (t.value or 0.0) >= (own[0].value or 0.0)]
    return [*others[:1], *own, *more][:most]


def confirmation_seconds(trials: Sequence[Trial], seeds: int, workers: int) -> float | None:
    """What ``seeds`` trainings of the two first candidates will take, by what each took in the search; None until the
    recipe itself has been trained."""
    whole = recipe_seconds(trials)
    if whole is None:
        return None
    each = [t.seconds or whole for t in candidates(trials, 2)]
    each += [whole] * (2 - len(each))
    return seeds * sum(each) if workers == 1 else math.ceil(2 * seeds / workers) * max(each)


@dataclass
class Confirmed:
    """A candidate trained again with other seeds, each with its validation accuracy and seconds of training."""

    number: int
    recipe: bool
    searched: float
    accuracies: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    epochs: float | None = None
    why: str | None = None

    def __str__(self) -> str:
        return "the recipe" if self.recipe else f"trial {self.number}"

    @property
    def mean(self) -> float | None:
        return sum(self.accuracies.values()) / len(self.accuracies) if self.accuracies else None

    @property
    def span(self) -> tuple[float, float] | None:
        """The lowest and the highest seed."""
        return (min(self.accuracies.values()), max(self.accuracies.values())) if self.accuracies else None

    def mean_seconds(self) -> float | None:
        return sum(self.seconds.values()) / len(self.seconds) if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "mean": self.mean,
            "min": (self.span or [None])[0],
            "max": (self.span or [None, None])[1],
        }


def common(confirmed: Sequence[Confirmed]) -> list[Confirmed]:
    """The candidates with the seeds that all of them were trained with; one that has none is left out."""
    able = [c for c in confirmed if c.accuracies]
    seeds = set.intersection(*(set(c.accuracies) for c in able)) if able else set()
    return [
        Confirmed(
            c.number,
            c.recipe,
            c.searched,
            {s: c.accuracies[s] for s in sorted(seeds)},
            {s: c.seconds[s] for s in sorted(seeds)},
            c.epochs,
        )
        for c in able
        if seeds
    ]


def too_slow(confirmed: Sequence[Confirmed]) -> list[Confirmed]:
    """Candidates that trained longer than the recipe did in between, by more than what one training differs from the
    next. By each one's fastest: what else the machine does only ever slows a training."""
    alike = common(confirmed)
    base = next((min(c.seconds.values()) for c in alike if c.recipe), None)
    return [] if base is None else [c for c in alike if min(c.seconds.values()) > MARGIN * base]


def clearly(one: Confirmed, other: Confirmed) -> bool:
    """Whether each seed of ``one`` is better than each of ``other``; of a single seed that can't be said."""
    if one.span is None or other.span is None or min(len(one.accuracies), len(other.accuracies)) < 2:
        return False
    return one.span[0] > other.span[1]


def winner(confirmed: Sequence[Confirmed], slower: bool) -> Confirmed | None:
    """The highest mean over the seeds that all have in common; the recipe where it is as good. Without ``slower`` none
    that is ``too_slow``."""
    out = set() if slower else {c.number for c in too_slow(confirmed)}
    alike = [c for c in common(confirmed) if c.number not in out]
    own = next((c for c in confirmed if c.recipe), None)
    if own is not None and not own.accuracies:  # there was no time for it: who was worse in the search does not win
        alike = [c for c in alike if c.searched > own.searched]
    return max(alike, key=lambda c: (round(c.mean or 0.0, 9), c.recipe), default=None)


@dataclass(frozen=True)
class Tuning:
    """What ``tenfold tune`` came to.

    best      the recipe file to train with; page the HTML report
    number    the winning trial's; ``recipe_won`` where none was better than the recipe itself
    gain      the winner's mean over the recipe's; ``clear`` where the seeds of both do not overlap
    test      ``{"accuracy", "n"}`` of the winner's first confirmed training, None where it was not read
    """

    path: Path
    best: Path | None
    page: Path
    study: str
    storage: str
    data: str
    recipe: Mapping[str, Any]
    space: Mapping[str, Any]
    trials: Sequence[Trial]
    confirmed: Sequence[Confirmed]
    number: int | None
    recipe_won: bool
    gain: float | None
    clear: bool
    test: Mapping[str, Any] | None
    test_reads: int
    importance: Mapping[str, float]
    seconds: Mapping[str, float]
    time_limit: float | None
    workers: int
    engine: str
    device: str
    notes: Sequence[str]
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    created: str

    def winning(self) -> Confirmed | None:
        return next((c for c in self.confirmed if c.number == self.number), None)

    def trial(self) -> Trial | None:
        return next((t for t in self.trials if t.number == self.number), None)

    def counts(self) -> dict[str, int]:
        """Trials by state, those of which there are any."""
        states = [t.state for t in self.trials]
        return {state: states.count(state) for state in dict.fromkeys(sorted(states))}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what ``--json`` prints and tune.json holds."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("path", "best", "page"):
            found[name] = None if found[name] is None else str(found[name])
        found["trials"] = [asdict(t) for t in self.trials]
        found["confirmed"] = [c.to_dict() for c in self.confirmed]
        return found


# ---- what is told while it goes ------------------------------------------------------------------------------


@dataclass
class Running:
    """What a worker is at: ``done`` from 0 to 1, ``value`` the last epoch's validation accuracy."""

    name: str
    done: float = 0.0
    value: float | None = None


@dataclass(frozen=True)
class Update:
    """How a search stands. ``phase``: start, search, confirm, test. Seconds are wall-clock; ``left`` is until the time
    limit, ``estimate`` until the expected end, each None where it is not known. ``ended`` is the trial that has just
    ended, ``confirmed`` the candidate of which a training just has."""

    phase: str
    trials: Sequence[Trial]
    wanted: int | None
    running: Sequence[Running]
    elapsed: float
    left: float | None
    estimate: float | None
    ended: Trial | None = None
    confirmed: Confirmed | None = None
    note: str | None = None
