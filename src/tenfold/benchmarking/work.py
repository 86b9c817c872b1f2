"""The order of the measurements; a benchmark that was stopped goes on in its folder."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold import children
from tenfold.benchmarking import child, targets
from tenfold.benchmarking import pictures as gathering
from tenfold.benchmarking.folder import FILE, Home
from tenfold.benchmarking.records import Benchmark, Configuration, Trial
from tenfold.benchmarking.targets import Found, Target, Wanted
from tenfold.comparison.records import load as load_notes
from tenfold.data.dataset import Dataset
from tenfold.data.progress import Progress
from tenfold.errors import CallError
from tenfold.run import next_folder, results_folder

BATCH_SIZES = (1, 8, 64)
ROUNDS = 3
TIME_LIMIT = 120.0
SECONDS = 0.5  # of measuring for each batch size in each process
TEST_IMAGES = 2000


@dataclass(frozen=True)
class Started:
    """Measurement ``number`` of ``total``, as far as they are known, begins."""

    number: int
    total: int
    configuration: Configuration
    round: int


@dataclass(frozen=True)
class Ended:
    """``kept`` where an earlier call measured it, and it is not measured again."""

    number: int
    total: int
    trial: Trial
    kept: bool = False


Event = Started | Ended | Progress


@dataclass(frozen=True)
class _Call:
    """What was asked for, with all checked that can be without the models."""

    wanted: Wanted
    batch_sizes: tuple[int, ...]
    rounds: int
    time_limit: float | None
    seconds: float
    test_images: int
    data: str | None
    command: str

    @property
    def settings(self) -> dict[str, Any]:
        """What bench.json says of the call; figures of the same ``measured`` are alike."""
        measured = {
            "batch_sizes": list(self.batch_sizes),
            "seconds": self.seconds,
            "test_images": self.test_images,
            "data": self.data,
        }
        return {"measured": measured, "rounds": self.rounds, "time_limit": self.time_limit}


def bench(
    runs: str | Path | Sequence[str | Path],
    *,
    runtimes: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    threads: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    time_limit: float | None = TIME_LIMIT,
    seconds: float = SECONDS,
    data: str | Path | Dataset | None = None,
    test_images: int = TEST_IMAGES,
    out: str | Path | None = None,
    listen: Callable[[Event], None] | None = None,
) -> Benchmark:
    """Measure trained models in every runtime, device, precision and batch size, each configuration in processes of its
    own.

    runs         one or several: the folder of a run (its exports take part), of a bundle or an exported artifact, or a
                 model.onnx
    runtimes     names of runtimes and engines; where None all that are installed
    devices      ``cpu``, ``cuda`` …; where None all that each runtime has
    precisions   ``fp32``, ``bf16``, ``fp16``, ``int8``; where None those that the device computes in natively, and an
                 artifact's own
    threads      how many cores the process may use; where None all
    rounds       processes of each configuration, in turn with the others
    time_limit   seconds after which no round is begun that would not end within them; the first one is always run
    seconds      of measuring for each batch size in each process
    data         other data than the model's own for accuracy: a dataset's name, a folder, a CSV or a Dataset
    test_images  how many test images accuracy is measured on at most; 0 leaves it out
    out          the folder; ``runs/bench-<name>-<n>`` where None. One that holds a benchmark of the same models and
                 settings goes on: what is measured there is not measured again
    listen       called with every Started and Ended, and with the Progress of reading the data

    What can't run here has a row that says why, and the others go on. Raises CallError for what can't be asked,
    BundleError for a damaged model, DataError for ``data`` that can't be used, and StoppedError after Ctrl-C or
    SIGTERM: what was measured is kept.
    """
    named = [runs] if isinstance(runs, (str, Path)) else list(runs)
    wanted = Wanted(_several(runtimes), _several(devices), _several(precisions), tuple(threads or (None,)))
    call = _call(named, wanted, batch_sizes, rounds, time_limit, seconds, data, test_images)
    listen = listen or (lambda event: None)
    targets.check(wanted)
    found = targets.find(named)
    planned = targets.plan(found, wanted)
    with children.interrupted_by_signals(), tempfile.TemporaryDirectory(prefix="tenfold-bench-") as temporary:
        shown = gathering.gather(Path(temporary), found, data, test_images, listen)
        folder = _folder(out, found)
        with results_folder(folder, FILE, "benchmark"):
            home = _Home(folder, call, found, [*planned.notes, *shown.notes])
            with home.measuring():
                _Work(home, call, shown.folders, Path(temporary), listen).run(planned)
            return home.finished()


def _several(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(dict.fromkeys(names))


def _folder(out: str | Path | None, found: Found) -> Path:
    return Path(out) if out is not None else next_folder(f"bench-{found.subjects[0].name}")


def _call(
    named: Sequence[str | Path],
    wanted: Wanted,
    batch_sizes: Sequence[int],
    rounds: int,
    time_limit: float | None,
    seconds: float,
    data: str | Path | Dataset | None,
    test_images: int,
) -> _Call:
    if not batch_sizes or not all(1 <= n <= 65536 for n in batch_sizes):
        raise CallError("Batch sizes must be whole numbers from 1 to 65536, and one at least.")
    if rounds < 1:
        raise CallError(f"{rounds} rounds: must be above 0.")
    if not 0 < seconds < float("inf") or (time_limit is not None and not 0 < time_limit < float("inf")):
        raise CallError("Seconds and the time limit must be above 0.")
    if test_images < 0:
        raise CallError(f"{test_images} test images: must be 0 or more.")
    words = ["tenfold", "bench", *map(str, named)]
    for option, values in (
        ("--runtimes", wanted.runtimes),
        ("--devices", wanted.devices),
        ("--precisions", wanted.precisions),
        ("--threads", None if wanted.threads == (None,) else wanted.threads),
        ("--batch-sizes", None if tuple(batch_sizes) == BATCH_SIZES else batch_sizes),
    ):
        words += [option, ",".join(map(str, values))] if values else []
    words += ["--rounds", str(rounds)] if rounds != ROUNDS else []
    words += ["--seconds", f"{seconds:g}"] if seconds != SECONDS else []
    words += ["--time-limit", f"{time_limit:g}s"] if time_limit is not None and time_limit != TIME_LIMIT else []
    words += ["--test-images", str(test_images)] if test_images != TEST_IMAGES else []
    source = data.source if isinstance(data, Dataset) else None if data is None else str(data)
    words += ["--data", source] if source else []
    sizes = tuple(sorted(set(batch_sizes)))
    return _Call(wanted, sizes, rounds, time_limit, seconds, test_images, source, shlex.join(words))


# ---- the measurements ------------------------------------------------------------------------------------------------


class _Work:
    """Round 0 of all, then round 1 of all …: what slows the machine for a while slows all alike."""

    def __init__(
        self,
        home: _Home,
        call: _Call,
        pictures: Mapping[str, Path],
        temporary: Path,
        listen: Callable[[Event], None],
    ) -> None:
        self.home, self.call, self.pictures = home, call, pictures
        self.temporary, self.listen = temporary, listen
        self.begun = time.monotonic()
        self.number = 0
        self.found: set[Configuration] = set()

    def run(self, plan: targets.Plan) -> None:
        planned = [*plan.first, *self._cards(plan.asked)]
        for number in range(self.call.rounds):
            started = time.monotonic()
            at = 0
            while at < len(planned):  # it grows while the first round tells of more devices
                target, configuration = planned[at]
                at += 1
                devices = self._one(target, configuration, number, len(planned))
                for one in targets.more(target, configuration, devices, self.call.wanted):
                    if one not in (c for _, c in planned):
                        self.found.add(one)
                        planned.insert(at, (target, one))
            done = {t.configuration for t in self.home.trials if t.status == "done"}
            planned = [(t, c) for t, c in planned if c in done]
            now = time.monotonic()
            limit = self.call.time_limit
            if limit is not None and number + 1 < self.call.rounds and now - self.begun + (now - started) > limit:
                self.home.notes.append(
                    f"{number + 1} of {self.call.rounds} rounds: another would have passed the time limit of "
                    f"{limit:g} s."
                )
                return

    def _cards(self, asked: Sequence[tuple[Target, Configuration]]) -> list[tuple[Target, Configuration]]:
        """What runtimes that are not measured on the processor have beside it."""
        devices = {c.runtime: child.devices_of(c.runtime, self.temporary) for _, c in asked}
        found = []
        for target, configuration in asked:
            told = {name: native for name, native in devices[configuration.runtime].items() if name != "cpu"}
            for one in targets.more(target, configuration, told, self.call.wanted):
                self.found.add(one)
                found.append((target, one))
        return found

    def _one(self, target: Target, configuration: Configuration, number: int, each: int) -> dict[str, list[str]]:
        self.number += 1
        total = max(self.number, each * self.call.rounds)
        if kept := self.home.find(configuration, number):
            self.listen(Ended(self.number, total, kept, kept=True))
            return self.home.devices.get(_key(configuration), {})
        self.listen(Started(self.number, total, configuration, number))
        measured = child.run(
            target,
            configuration,
            number,
            pictures=self.pictures[configuration.subject],
            home=self.temporary,
            batch_sizes=list(self.call.batch_sizes),
            seconds=self.call.seconds,
            first=number == 0,
            found=configuration in self.found,
        )
        self.home.add(measured)
        self.listen(Ended(self.number, total, measured.trial))
        return measured.devices


def _key(configuration: Configuration) -> str:
    return f"{configuration.subject} {configuration}"


# ---- the folder ------------------------------------------------------------------------------------------------------


class _Home(Home):
    """A benchmark of models. ``devices`` is what else each configuration's runtime said that it has."""

    kind = "inference"

    def __init__(self, path: Path, call: _Call, found: Found, notes: Sequence[str]) -> None:
        super().__init__(path, call.command, call.settings, found.subjects)
        self.notes = [*found.notes, *notes]
        self.devices: dict[str, dict[str, list[str]]] = {}
        self.settings["found"] = self.devices

    def alike(self, stored: Benchmark) -> dict[str, bool]:
        return {"model": [s.digest for s in stored.subjects] == [s.digest for s in self.subjects]}

    def told(self, done: Sequence[Trial]) -> list[str]:
        return [*load_notes(done, "measurements"), *self.notes]

    def taken(self, stored: Benchmark) -> None:
        self.devices.update(stored.settings.get("found", {}))

    def add(self, measured: child.Measured) -> None:
        self.trials.append(measured.trial)
        if measured.devices:
            self.devices[_key(measured.trial.configuration)] = measured.devices
        self.write("running")
