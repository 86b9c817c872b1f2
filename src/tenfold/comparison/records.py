"""A comparison's figures: what each training came to, and the rows that are made of them. Plain arithmetic."""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

OTHERS_SHARE = 0.1  # of all cores: what others may use without being mentioned
STOLEN_SHARE = 0.02


@dataclass(frozen=True)
class Contestant:
    """An engine on a device, as asked for: ``auto`` stays ``auto``."""

    engine: str
    device: str

    def __str__(self) -> str:
        return f"{self.engine} {self.device}"


@dataclass(frozen=True)
class Trial:
    """One training as a process of its own, from its start to its end. None is what is not known, or not there.

    status             done; refused: the call can't be done here (exit code 2); failed: anything else
    seconds            wall time of the whole process
    parts              seconds of its phases, as ``tenfold train --json`` gives them
    memory_bytes       most resident memory of the process and its children
    device_memory_bytes  most memory taken of a GPU
    energy_wh          what the GPU used while the process ran, all of the card
    others_cores       cores that other programs used meanwhile, on average
    steal_share        share of the machine's processor time that its host gave to others
    folder             the run folder, inside the comparison's
    """

    engine: str
    device: str
    seed: int
    status: Literal["done", "refused", "failed"]
    why: str | None
    exit_code: int
    started: str
    seconds: float
    folder: str
    command: str
    ran_on: str | None = None
    device_label: str | None = None
    precision: str | None = None
    accuracy: float | None = None
    accuracy_with_tta: float | None = None
    test_images: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    images_per_second: float | None = None
    memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    energy_wh: float | None = None
    cpu_seconds: float | None = None
    others_cores: float | None = None
    steal_share: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def contestant(self) -> Contestant:
        return Contestant(self.engine, self.device)

    def __str__(self) -> str:
        return _name(self)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """Raises TypeError where a field is missing; fields of a newer tenfold are left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


# ---- what a listener is told ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeftOut:
    """This contestant is not trained at all, told before anything is."""

    contestant: Contestant
    why: str


@dataclass(frozen=True)
class Started:
    """Run ``number`` of ``total`` begins."""

    number: int
    total: int
    contestant: Contestant
    seed: int


@dataclass(frozen=True)
class Ended:
    """``kept`` where the run was measured by an earlier call and is not run again."""

    number: int
    total: int
    trial: Trial
    kept: bool = False


# ---- rows ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of ``n`` values."""

    median: float
    min: float
    max: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """None where a value is missing, or there is none."""
        given = list(values)
        known = [v for v in given if v is not None]
        if not known or len(known) < len(given):
            return None
        return cls(statistics.median(known), min(known), max(known), len(known))


@dataclass(frozen=True)
class Row:
    """What a contestant's ``n`` trainings came to; ``why`` it has fewer than were asked for, or none.

    speed_up   the reference's median whole seconds by this one's
    cost       of one training: median whole hours by the price of an hour
    """

    engine: str
    device: str
    ran_on: str | None
    device_label: str | None
    precision: str | None
    n: int
    status: Literal["done", "left out", "refused", "failed"]
    why: str | None
    accuracy: Spread | None = None
    accuracy_with_tta: Spread | None = None
    seconds: Spread | None = None
    train_seconds: Spread | None = None
    images_per_second: Spread | None = None
    memory_bytes: Spread | None = None
    device_memory_bytes: Spread | None = None
    energy_wh: Spread | None = None
    speed_up: float | None = None
    cost: float | None = None

    def __str__(self) -> str:
        return _name(self)


def _name(one: Trial | Row) -> str:
    """``auto`` is told as the device that it came to."""
    return f"{one.engine} {one.ran_on if one.device == 'auto' and one.ran_on else one.device}"


@dataclass(frozen=True)
class Comparison:
    """What ``tenfold.compare`` gives back. ``reference`` is the row that the speed-ups are over."""

    path: Path
    data: str
    recipe: Mapping[str, Any]
    rows: Sequence[Row]
    reference: str | None
    trials: Sequence[Trial]
    notes: Sequence[str]
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    created: str
    price_per_hour: float | Mapping[str, float] | None = None

    @property
    def ok(self) -> bool:
        """Something was measured, and nothing failed that should not have."""
        return any(row.n for row in self.rows) and not any(row.status == "failed" for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what ``tenfold compare --json`` prints and compare.json holds."""
        return {
            "path": str(self.path),
            "data": self.data,
            "recipe": dict(self.recipe),
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "reference": self.reference,
            "notes": list(self.notes),
            "price_per_hour": self.price_per_hour,
            "hardware": dict(self.hardware),
            "versions": dict(self.versions),
            "command": self.command,
            "created": self.created,
            "runs": [trial.to_dict() for trial in self.trials],
        }


def rows(
    contestants: Sequence[Contestant],
    trials: Sequence[Trial],
    left_out: Mapping[Contestant, str],
    price: float | Mapping[str, float] | None = None,
) -> tuple[list[Row], str | None]:
    """A row for each contestant, in order, and the name of the one that the speed-ups are over.

    That is the first that ran on the CPU, else the first that was measured.
    """
    found = [_row(c, [t for t in trials if t.contestant == c], left_out.get(c), price) for c in contestants]
    measured = [row for row in found if row.seconds is not None]
    base = next((row for row in measured if row.ran_on == "cpu"), measured[0] if measured else None)
    if base is None or base.seconds is None:
        return found, None
    whole = base.seconds.median
    faster = [
        row if row.seconds is None else dataclasses.replace(row, speed_up=whole / row.seconds.median) for row in found
    ]
    return faster, str(base)


def _row(
    contestant: Contestant, trials: Sequence[Trial], left_out: str | None, price: float | Mapping[str, float] | None
) -> Row:
    done = [t for t in trials if t.status == "done"]
    bad = next((t for t in trials if t.status != "done"), None)
    why = bad.why if bad else left_out
    ran_on = done[-1].ran_on if done else None
    seconds = Spread.of(t.seconds for t in done)
    hourly = price_of(contestant.device, ran_on, price)
    return Row(
        engine=contestant.engine,
        device=contestant.device,
        ran_on=ran_on,
        device_label=done[-1].device_label if done else None,
        precision=done[-1].precision if done else None,
        n=len(done),
        status=bad.status if bad else "left out" if left_out and not done else "done",
        why=why,
        accuracy=Spread.of(t.accuracy for t in done),
        accuracy_with_tta=Spread.of(t.accuracy_with_tta for t in done),
        seconds=seconds,
        train_seconds=Spread.of(t.parts.get("train") for t in done),
        images_per_second=Spread.of(t.images_per_second for t in done),
        memory_bytes=Spread.of(t.memory_bytes for t in done),
        device_memory_bytes=Spread.of(t.device_memory_bytes for t in done),
        energy_wh=Spread.of(t.energy_wh for t in done),
        cost=None if hourly is None or seconds is None else seconds.median / 3600 * hourly,
    )


def price_of(device: str, ran_on: str | None, price: float | Mapping[str, float] | None) -> float | None:
    """The price of an hour on a device: by its name as asked for, by where it ran, or by their kind (``cuda``)."""
    if price is None or isinstance(price, (int, float)):
        return price
    names = [device, ran_on or device]
    return next((price[name] for name in (*names, *(n.partition(":")[0] for n in names)) if name in price), None)


# ---- what must be said ---------------------------------------------------------------------------------------------


def notes(trials: Sequence[Trial]) -> list[str]:
    """A sentence for all that makes the figures less alike than they look."""
    done = [t for t in trials if t.status == "done"]
    return [*load(done), *_precisions(done), *_versions(done), *_of_some(done)]


class Disturbed(Protocol):
    """What has run while others may have used the machine: a training, a measurement."""

    @property
    def others_cores(self) -> float | None: ...

    @property
    def steal_share(self) -> float | None: ...


def load(done: Sequence[Disturbed], what: str = "runs") -> list[str]:
    """A sentence where other programs used the machine meanwhile, and one where its host gave it to others."""
    cores = os.cpu_count() or 1
    others = [t.others_cores for t in done if t.others_cores is not None and t.others_cores > OTHERS_SHARE * cores]
    stolen = [t.steal_share for t in done if t.steal_share is not None and t.steal_share > STOLEN_SHARE]
    found = []
    if others:
        found.append(
            f"In {len(others)} of {len(done)} {what} other programs used the machine too, up to {max(others):.1f} of "
            f"{cores} cores: alone, the {what} may be faster."
        )
    if stolen:
        found.append(
            f"In {len(stolen)} of {len(done)} {what} the machine's host gave its processors to others, up to "
            f"{100 * max(stolen):.0f} % of the time."
        )
    return found


def _precisions(done: Sequence[Trial]) -> list[str]:
    used: dict[str, list[str]] = {}
    for trial in done:
        names = used.setdefault(trial.precision or "unknown", [])
        if str(trial) not in names:
            names.append(str(trial))
    if len(used) < 2:
        return []
    return ["Precision differs: " + "; ".join(f"{p} in {', '.join(names)}" for p, names in used.items()) + "."]


def _versions(done: Sequence[Trial]) -> list[str]:
    seen: dict[Contestant, set[tuple[tuple[str, str], ...]]] = {}
    for trial in done:
        seen.setdefault(trial.contestant, set()).add(tuple(sorted(trial.versions.items())))
    return [f"The runs of {c} are of different versions of its packages: see compare.json." for c in seen
            if len(seen[c]) > 1]  # fmt: skip


def _of_some(done: Sequence[Trial]) -> list[str]:
    """What a training had to tell, with the contestants' names where it is not all of them."""
    everyone = {t.contestant for t in done}
    told: dict[str, dict[Contestant, None]] = {}
    for trial in done:
        for note in trial.notes:
            told.setdefault(note, {})[trial.contestant] = None
    return [
        note if set(by) == everyone else f"{', '.join(map(str, by))}: {note}"
        for note, by in told.items()
    ]  # fmt: skip
