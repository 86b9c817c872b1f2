"""The order of the runs, and the folder that keeps what was measured: a comparison that was stopped goes on there."""

from __future__ import annotations

import datetime
import importlib.util
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenfold
from tenfold import children, energy, hardware, paths
from tenfold import recipe as recipes
from tenfold import run as runs
from tenfold.comparison import child, records
from tenfold.comparison.child import Child
from tenfold.comparison.records import Comparison, Contestant, Ended, LeftOut, Started, Trial
from tenfold.data import load_dataset
from tenfold.data.progress import Progress
from tenfold.engines import base as engines_base
from tenfold.errors import CallError, MissingExtraError, RunError, RunExistsError, StoppedError, UnknownNameError
from tenfold.recipe import Recipe

FILE, RECIPE = "compare.json", "recipe.yaml"
FORMAT = 1

Event = LeftOut | Started | Ended | Progress
Price = float | Mapping[str, float]


@dataclass(frozen=True)
class _Call:
    """What was asked for, with all checked that can be without data."""

    data: str
    contestants: Sequence[Contestant]
    seeds: int
    recipe: Recipe
    price: Price | None
    command: str


def compare(
    data: str | Path = "digits",
    *,
    engines: Sequence[str] | None = None,
    devices: Sequence[str] = ("auto",),
    recipe: str | Path | Recipe = "quick",
    seeds: int = 3,
    overrides: Mapping[str, Any] | None = None,
    price_per_hour: Price | None = None,
    out: str | Path | None = None,
    listen: Callable[[Event], None] | None = None,
) -> Comparison:
    """Train the same recipe in each engine on each device with each seed, one process after the other, and tell what
    each took and came to.

    data            a dataset's name, a folder of pictures or a CSV; read once before, which no run's time counts
    engines         names of ``tenfold.engines.base.ENGINES``; where None, all that are installed
    devices         as for ``tenfold.train``; ``auto`` is each engine's fastest
    recipe          a preset's name, a YAML file or a Recipe; overrides: its fields by dotted name
    seeds           each contestant is trained with the seeds 0 … seeds-1, in turn with the others
    price_per_hour  of a machine, or of each device by name or kind: ``{"cpu": 0.05, "cuda": 2.5}``
    out             the folder; ``runs/compare-<data>-<recipe>-<n>`` where None. One that holds a comparison of the same
                    recipe and data goes on: what is measured there is not run again
    listen          called with every LeftOut, Started and Ended, and with the Progress of reading the data

    A contestant that can't run here has a row that says why, and the others go on. Raises CallError for what can't be
    asked, DataError, and StoppedError after Ctrl-C or SIGTERM: what was measured is kept.
    """
    call = _call(data, engines, devices, recipe, seeds, overrides or {}, price_per_hour)
    listen = listen or (lambda event: None)
    left_out = {c: why for c in call.contestants if (why := _missing(c.engine))}
    for contestant, why in left_out.items():
        listen(LeftOut(contestant, why))
    dataset = load_dataset(call.data, call.recipe.data, report=listen)
    source, facts = dataset.source, {"source": dataset.source, "fingerprint": dataset.fingerprint}
    folder = Path(out) if out is not None else runs.next_folder(f"compare-{dataset.name}-{call.recipe.name}")
    del dataset  # its memory is the children's
    with runs.results_folder(folder, FILE, "comparison"):
        home = _Home(folder, call, facts)
        home.load()
        with children.interrupted_by_signals():
            try:
                _run_all(home, call, source, left_out, listen)
            except KeyboardInterrupt:
                home.write(left_out, "interrupted")
                raise StoppedError(
                    f"Stopped; {home.measured()} measured, all kept.",
                    f"Go on with: {call.command} --out {shlex.quote(str(folder))}",
                ) from None
        result = home.write(left_out, "finished")
        _draw(result)
    return result


def _call(
    data: str | Path,
    engines: Sequence[str] | None,
    devices: Sequence[str],
    recipe: str | Path | Recipe,
    seeds: int,
    overrides: Mapping[str, Any],
    price: Price | None,
) -> _Call:
    if recipe == "auto":
        raise CallError(
            "A comparison needs one recipe for all, and auto is another on a GPU.", "Name one, such as --recipe quick."
        )
    if "seed" in overrides:
        raise CallError("The seeds of a comparison are 0, 1, 2 …; seed can't be set.", "--seeds says how many.")
    if seeds < 1:
        raise CallError(f"{seeds} seeds: must be above 0.")
    names = list(engines) if engines is not None else [n for n in engines_base.ENGINES if not _missing(n)]
    for name in names:
        if name not in engines_base.ENGINES:
            raise UnknownNameError("engine", name, engines_base.ENGINES)
    if not names:
        raise CallError(
            "No engine is installed.", "Install one with: pip install 'tenfold[torch]'; tenfold doctor tells more."
        )
    for kind, given in (("engine", names), ("device", list(devices))):
        if twice := [n for n in given if given.count(n) > 1]:
            raise CallError(f"The {kind} {twice[0]} is named twice.", "Name each once; --seeds repeats a run.")
        if not given or not all(given):
            raise CallError(f"No {kind} is named.")
    _check_price(price, devices)
    resolved = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    if overrides:
        from tenfold.training import overridden

        resolved = overridden(resolved, overrides)
    words = ["tenfold", "compare", str(data), "--engines", ",".join(names), "--devices", ",".join(devices)]
    words += ["--recipe", resolved.name if isinstance(recipe, Recipe) else str(recipe), "--seeds", str(seeds)]
    words += [w for name, value in overrides.items() for w in ("--set", f"{name}={json.dumps(value)}")]
    if price is not None:
        shown = ",".join(f"{n}={v:g}" for n, v in price.items()) if isinstance(price, Mapping) else f"{price:g}"
        words += ["--price-per-hour", shown]
    contestants = [Contestant(engine, device) for engine in names for device in devices]
    return _Call(str(data), contestants, seeds, resolved, price, shlex.join(words))


def _check_price(price: Price | None, devices: Sequence[str]) -> None:
    values = list(price.values()) if isinstance(price, Mapping) else [] if price is None else [price]
    for value in values:
        if not 0 <= value < float("inf"):
            raise CallError(f"A price of {value:g} an hour is no price.", "Give a number from 0 up.")
    if isinstance(price, Mapping) and "auto" not in devices:
        known = {name for device in devices for name in (device, device.partition(":")[0])}
        for name in price:
            if name not in known and name.partition(":")[0] not in known:
                raise UnknownNameError("device of this comparison", name, sorted(known), where=" in the prices")


def _missing(engine: str) -> str | None:
    """Why the engine can't be had here, as far as can be told without importing it."""
    entry = engines_base.ENGINES[engine]
    package = entry.missing()
    return str(MissingExtraError(package, entry.extra, f"Training with the {engine} engine")) if package else None


# ---- the runs ------------------------------------------------------------------------------------------------------


def _run_all(
    home: _Home, call: _Call, source: str, left_out: Mapping[Contestant, str], listen: Callable[[Event], None]
) -> None:
    """Seed 0 of all, then seed 1 of all …: what slows the machine for a while slows all alike."""
    runners = [c for c in call.contestants if c not in left_out]
    plan = [(c, seed) for seed in range(call.seeds) for c in runners]
    meter = energy.meter()
    given_up: set[Contestant] = set()
    home.write(left_out, "running")
    for number, (contestant, seed) in enumerate(plan, 1):
        if kept := home.find(contestant, seed):
            listen(Ended(number, len(plan), kept, kept=True))
            continue
        if contestant in given_up:
            continue
        listen(Started(number, len(plan), contestant, seed))
        trial = child.run(Child(contestant, seed, source, home.path / RECIPE, home.path), meter)
        home.trials.append(trial)
        home.write(left_out, "running")
        if trial.status != "done":
            given_up.add(contestant)
        listen(Ended(number, len(plan), trial))


# ---- the folder ----------------------------------------------------------------------------------------------------


class _Home:
    """compare.json and what it knows; it is written whole after every run."""

    def __init__(self, path: Path, call: _Call, data: Mapping[str, str]) -> None:
        self.path, self.call, self.data = path, call, data
        self.trials: list[Trial] = []
        self.created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.hardware = hardware.describe()
        self.recipe = call.recipe.model_dump(mode="json", exclude={"seed"})  # each run has its own

    def load(self) -> None:
        """Takes over what an earlier call measured here; what was refused or failed is tried again."""
        if (self.path / FILE).exists():
            try:
                stored = json.loads((self.path / FILE).read_text(encoding="utf-8"))
                self._check_same(stored)
                self.trials = [t for t in map(Trial.from_dict, stored["runs"]) if t.status == "done"]
                self.created = stored["created"]
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise RunError(
                    f"{self.path / FILE} can't be read: {error}.", "Name another folder with --out."
                ) from None
        try:
            paths.write_whole(self.path / RECIPE, self.call.recipe.to_yaml())
        except OSError as error:
            raise RunError(f"The folder {self.path} can't be written: {error.strerror}.") from None

    def _check_same(self, stored: Mapping[str, Any]) -> None:
        now = {"recipe": self.recipe, "data": self.data["fingerprint"], "machine": _machine(self.hardware)}
        then = {
            "recipe": stored["recipe"],
            "data": stored["data_fingerprint"],
            "machine": _machine(stored["hardware"]),
        }
        for what, value in now.items():
            if value != then[what]:
                raise RunExistsError(
                    f"{self.path} holds a comparison with another {what if what != 'data' else 'state of the data'}; "
                    "its figures and these would not be alike.",
                    "Name another folder with --out.",
                )

    def find(self, contestant: Contestant, seed: int) -> Trial | None:
        return next((t for t in self.trials if t.contestant == contestant and t.seed == seed), None)

    def measured(self) -> str:
        done = sum(t.status == "done" for t in self.trials)
        return f"{done} run{'' if done == 1 else 's'}"

    def contestants(self) -> list[Contestant]:
        """Those of this call, then those that only earlier calls measured here."""
        return list(dict.fromkeys([*self.call.contestants, *(t.contestant for t in self.trials)]))

    def write(self, left_out: Mapping[Contestant, str], status: str) -> Comparison:
        rows, reference = records.rows(self.contestants(), self.trials, left_out, self.call.price)
        result = Comparison(
            path=self.path,
            data=self.data["source"],
            recipe=self.recipe,
            rows=rows,
            reference=reference,
            trials=list(self.trials),
            notes=records.notes(self.trials),
            hardware=self.hardware,
            versions={"tenfold": tenfold.__version__, **hardware.versions()},
            command=self.call.command,
            created=self.created,
            price_per_hour=self.call.price,
        )
        kept = {"format": FORMAT, "status": status, "data_fingerprint": self.data["fingerprint"], **result.to_dict()}
        del kept["path"]  # the folder may be moved
        text = json.dumps(kept, indent=2, ensure_ascii=False, allow_nan=False)
        try:
            paths.write_whole(self.path / FILE, text + "\n")
        except OSError as error:
            raise RunError(f"{self.path / FILE} can't be written: {error.strerror}.") from None
        return result


def _machine(described: Mapping[str, Any]) -> tuple[object, object]:
    return described["cpu"], described["cores"]


def _draw(result: Comparison) -> None:
    """compare.svg and compare.png, where there is something to draw and matplotlib to draw it."""
    if not any(row.n for row in result.rows) or importlib.util.find_spec("matplotlib") is None:
        return
    from tenfold.comparison import plot

    for kind, content in plot.draw(result).items():
        paths.write_whole(result.path / f"compare.{kind}", content)
