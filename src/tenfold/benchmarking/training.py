"""``tenfold bench --train``: training steps in every engine, device, precision and batch size.

Each engine on each device in each precision is a process of its own (``training_worker.py``), which measures one batch
size after another. Rounds, folder and records are those of the benchmark of models.
"""

from __future__ import annotations

import json
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tenfold import children
from tenfold import recipe as recipes
from tenfold import run as runs
from tenfold.benchmarking.folder import FILE, Home
from tenfold.benchmarking.records import Benchmark, Configuration, Subject, Trial
from tenfold.benchmarking.training_child import Asked, devices_of, energy_notes, measure, speed_ups
from tenfold.benchmarking.work import Ended, Event, Started
from tenfold.comparison.records import load as load_notes
from tenfold.comparison.work import Price
from tenfold.data import load_dataset
from tenfold.engines import base as engines_base
from tenfold.errors import CallError, UnknownNameError
from tenfold.recipe import Recipe
from tenfold.training import overridden

ROUNDS = 3
FOR_CARDS = ("opencl",)  # on a processor it compiles for minutes: measured there where it is named
TIME_LIMIT = 180.0
SECONDS = 1.0  # of measuring for each batch size in each process
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class _Call:
    """What was asked for, with all checked that can be without the data."""

    data: str
    engines: tuple[str, ...]
    devices: tuple[str, ...] | None
    precisions: tuple[str, ...] | None
    batch_sizes: tuple[int, ...]
    recipe: Recipe
    rounds: int
    time_limit: float | None
    seconds: float
    price: Price | None
    command: str
    engines_named: bool = True  # whether someone asked for them

    @property
    def settings(self) -> dict[str, Any]:
        measured = {
            "batch_sizes": list(self.batch_sizes),
            "seconds": self.seconds,
            "recipe": self.recipe.to_yaml(),
        }
        return {
            "measured": measured,
            "rounds": self.rounds,
            "time_limit": self.time_limit,
            "price_per_hour": dict(self.price) if isinstance(self.price, Mapping) else self.price,
        }


def bench_training(
    data: str | Path = "cifar10",
    *,
    engines: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    batch_sizes: Sequence[int] | None = None,
    recipe: str | Path | Recipe = "quick",
    overrides: Mapping[str, Any] | None = None,
    rounds: int = ROUNDS,
    time_limit: float | None = TIME_LIMIT,
    seconds: float = SECONDS,
    price_per_hour: Price | None = None,
    out: str | Path | None = None,
    listen: Callable[[Event], None] | None = None,
) -> Benchmark:
    """Measure how fast a recipe's network is trained: steps in every engine, device, precision and batch size.

    data            a dataset's name, a folder of pictures or a CSV; read once before, which no figure counts
    engines         names of ``tenfold.engines.base.ENGINES``; where None all that are installed, opencl on cards only
    devices         ``cpu``, ``cuda:0`` …; where None all that each engine has, of several alike the first
    precisions      ``fp32``, ``bf16``, ``fp16``; where None those that the device computes in natively
    batch_sizes     where None from 32 on twice as many, until that is no faster or does not fit the memory
    recipe          a preset's name, a YAML file or a Recipe: its network, optimizer and augmentation, on pictures of
                    their full size; overrides: its fields by dotted name
    rounds          processes of each configuration, in turn with the others
    time_limit      seconds after which no round is begun that would not end within them; the first one is always run
    seconds         of measuring for each batch size in each process
    price_per_hour  of a machine, or of each device by name or kind: ``{"cpu": 0.05, "cuda": 2.5}``
    out             the folder; ``runs/bench-train-<data>-<recipe>-<n>`` where None. One that holds a benchmark of the
                    same settings goes on
    listen          called with every Started and Ended, and with the Progress of reading the data

    What can't run here has a row that says why. Raises CallError for what can't be asked, DataError, and StoppedError
    after Ctrl-C or SIGTERM: what was measured is kept.
    """
    call = _call(
        str(data), engines, devices, precisions, batch_sizes, recipe, overrides or {}, rounds, time_limit, seconds,
        price_per_hour,
    )  # fmt: skip
    listen = listen or (lambda event: None)
    dataset = load_dataset(call.data, call.recipe.data, report=listen)
    call = replace(call, data=dataset.source)
    name, fingerprint = dataset.name, dataset.fingerprint
    del dataset  # its memory is the children's
    folder = Path(out) if out is not None else runs.next_folder(f"bench-train-{name}-{call.recipe.name}")
    with runs.results_folder(folder, FILE, "benchmark"), children.interrupted_by_signals():
        home = _Home(folder, call, fingerprint)
        with home.measuring(), tempfile.TemporaryDirectory(prefix="tenfold-bench-") as temporary:
            _run_all(home, call, Path(temporary), listen)
        return home.finished()


def _call(
    data: str,
    engines: Sequence[str] | None,
    devices: Sequence[str] | None,
    precisions: Sequence[str] | None,
    batch_sizes: Sequence[int] | None,
    recipe: str | Path | Recipe,
    overrides: Mapping[str, Any],
    rounds: int,
    time_limit: float | None,
    seconds: float,
    price: Price | None,
) -> _Call:
    if recipe == "auto":
        raise CallError("A benchmark needs one recipe for all, and auto is another on a GPU.", "Try --recipe quick.")
    for name in ("batch_size", "precision"):
        if name in overrides:
            option = f"--{name.replace('_', '-')}s"
            raise CallError(f"{name} is what a benchmark varies; it can't be set.", f"Name some with {option}.")
    names = list(engines) if engines is not None else [n for n, e in engines_base.ENGINES.items() if not e.missing()]
    for kind, given, known in (
        ("engine", names, engines_base.ENGINES), ("precision", precisions or (), PRECISIONS),
    ):  # fmt: skip
        for name in given:
            if name not in known:
                raise UnknownNameError(kind, name, known)
    if not names:
        raise CallError("No engine is installed.", "Install one with: pip install 'tenfold[torch]'")
    if batch_sizes is not None and (not batch_sizes or not all(1 <= n <= 65536 for n in batch_sizes)):
        raise CallError("Batch sizes must be whole numbers from 1 to 65536, and one at least.")
    if rounds < 1:
        raise CallError(f"{rounds} rounds: must be above 0.")
    if not 0 < seconds < float("inf") or (time_limit is not None and not 0 < time_limit < float("inf")):
        raise CallError("Seconds and the time limit must be above 0.")
    for value in price.values() if isinstance(price, Mapping) else [] if price is None else [price]:
        if not 0 <= value < float("inf"):
            raise CallError(f"A price of {value:g} an hour is no price.", "Give a number from 0 up.")
    named = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    resolved = overridden(named, overrides) if overrides else named
    words = ["tenfold", "bench", "--train", data, "--recipe", named.name if isinstance(recipe, Recipe) else str(recipe)]
    for option, values in (
        ("--engines", engines), ("--devices", devices), ("--precisions", precisions), ("--batch-sizes", batch_sizes),
    ):  # fmt: skip
        words += [option, ",".join(map(str, values))] if values else []
    words += ["--rounds", str(rounds)] if rounds != ROUNDS else []
    words += ["--seconds", f"{seconds:g}"] if seconds != SECONDS else []
    words += ["--time-limit", f"{time_limit:g}s"] if time_limit is not None and time_limit != TIME_LIMIT else []
    words += [w for name, value in overrides.items() for w in ("--set", f"{name}={json.dumps(value)}")]
    if price is not None:
        shown = ",".join(f"{n}={v:g}" for n, v in price.items()) if isinstance(price, Mapping) else f"{price:g}"
        words += ["--price-per-hour", shown]
    return _Call(
        data, tuple(dict.fromkeys(names)), _several(devices), _several(precisions),
        tuple(sorted(set(batch_sizes or ()))), resolved, rounds, time_limit, seconds, price, shlex.join(words),
        engines is not None,
    )  # fmt: skip


def _several(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(dict.fromkeys(names))


# ---- the measurements ------------------------------------------------------------------------------------------------


def _run_all(home: _Home, call: _Call, temporary: Path, listen: Callable[[Event], None]) -> None:
    """Round 0 of all, then round 1 of all …: what slows the machine for a while slows all alike."""
    recipe = temporary / "recipe.yaml"
    recipe.write_text(call.recipe.to_yaml(), encoding="utf-8")
    asked = Asked(call.data, recipe, call.batch_sizes, call.seconds, call.price, temporary)
    begun = time.monotonic()
    planned = _planned(home, call, asked)
    number, total = 0, len(planned) * call.rounds
    for turn in range(call.rounds):
        started = time.monotonic()
        for configuration in planned:
            number += 1
            if kept := home.find(configuration, turn):
                listen(Ended(number, total, kept, kept=True))
                continue
            listen(Started(number, total, configuration, turn))
            trial, subject = measure(configuration, turn, asked)
            home.add(trial, subject)
            listen(Ended(number, total, trial))
        done = {t.configuration for t in home.trials if t.status == "done"}
        planned = [c for c in planned if c in done]
        now = time.monotonic()
        another = now - begun + (now - started)
        if call.time_limit is not None and turn + 1 < call.rounds and another > call.time_limit:
            home.notes.append(
                f"{turn + 1} of {call.rounds} rounds: another would have passed the time limit of "
                f"{call.time_limit:g} s."
            )
            return


def _planned(home: _Home, call: _Call, asked: Asked) -> list[Configuration]:
    """Every engine on every device in every precision that is asked for, or that it has."""
    found = []
    for engine in call.engines:
        known: dict[str, list[str]] = {}
        if call.devices is None or call.precisions is None:
            known, why = devices_of(engine, asked)
            if why is not None:
                home.add(Trial(Configuration(call.recipe.name, engine, "auto", "fp32"), 0, "failed", why), None)
                continue
        if engine in FOR_CARDS and not call.engines_named:
            known = {name: native for name, native in known.items() if name != "cpu"}
        for device in call.devices or _one_of_each(known):
            full = f"{device}:0" if device in ("cuda", "xpu") else device
            native = known.get(full, ["", "fp32"])[1:]
            found += [Configuration(call.recipe.name, engine, device, p) for p in call.precisions or native]
    return list(dict.fromkeys(found))


def _one_of_each(known: Mapping[str, list[str]]) -> list[str]:
    """The first device of each hardware: eight cards of one make are measured once."""
    found: dict[str, str] = {}
    for name, (label, *_) in known.items():
        found.setdefault(label, name)
    return list(found.values())


# ---- the folder ------------------------------------------------------------------------------------------------------


class _Home(Home):
    """A benchmark of training. Its subject, the network, is known once one engine has been measured."""

    kind = "training"

    def __init__(self, path: Path, call: _Call, fingerprint: str) -> None:
        data = {"source": call.data, "fingerprint": fingerprint}
        super().__init__(path, call.command, {**call.settings, "data": data}, [])

    def alike(self, stored: Benchmark) -> dict[str, bool]:
        return {"data": stored.settings.get("data") == self.settings["data"]}

    def told(self, done: Sequence[Trial]) -> list[str]:
        each = [note for t in done for note in t.notes]
        speeds = map(str, speed_ups(done))
        return [*load_notes(done, "measurements"), *speeds, *energy_notes(done), *each, *self.notes]

    def taken(self, stored: Benchmark) -> None:
        self.subjects = list(stored.subjects)[:1]

    def add(self, trial: Trial, subject: Subject | None) -> None:
        self.trials.append(trial)
        if subject is not None and not self.subjects:
            self.subjects = [subject]
        self.write("running")
