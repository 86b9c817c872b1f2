"""What a benchmark came to, and its JSON: the same for inference (``tenfold bench RUN``) and for training.

A :class:`Benchmark` is one machine's: hardware, versions, command, and a :class:`Row` for each configuration and batch
size, whose figures are medians with their spread. The rows are made of trials, by :func:`rows`; a :class:`Trial` is
what one process of one configuration measured. How to use it:

    trial = Trial(Configuration("cifar10-quick-1", "torch", "cpu", "fp32"), round=0, status="done",
                  figures={"first_prediction_seconds": 1.2}, by_batch={"64": {"images_per_second": 1800.0}})
    made = Benchmark.of("inference", subjects, trials, command="tenfold bench …", settings={…}, notes=[…])
    paths.write_whole(path, made.to_json())
    made = read(path)          # CallError in one line for any other JSON

Names of figures are those of FIGURES and no others, so that tables, plots and ``bench compare`` know each one's title,
unit and which way is better; a figure of the whole process stands in every row of its configuration. Training adds its
own there. Fields that a newer tenfold writes are left out when an older one reads them.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tenfold.comparison.records import Spread
from tenfold.errors import CallError

FORMAT, VERSION = "tenfold-bench", 1
MAX_BYTES = 64 * 2**20
KINDS = ("inference", "training")
# By kind: the time that one batch takes, and how long the first waits.
LATENCY = {
    "inference": ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms"),
    "training": ("step_p50_ms", "step_p90_ms", "step_p99_ms"),
}
FIRST = {"inference": "first_prediction_seconds", "training": "first_step_seconds"}

Kind = Literal["inference", "training"]
Status = Literal["done", "refused", "failed"]


@dataclass(frozen=True)
class Figure:
    """``title`` of two lines for a table's head; ``unit`` is that of the number in JSON; ``better``: ``higher``,
    ``lower`` or, where neither is, the empty text."""

    title: str
    unit: str
    better: Literal["higher", "lower", ""]


FIGURES: dict[str, Figure] = {
    # of a batch size
    "images_per_second": Figure("images/s", "images/s", "higher"),
    "decoded_images_per_second": Figure("with\ndecoding", "images/s", "higher"),
    "latency_p50_ms": Figure("p50", "ms", "lower"),
    "latency_p90_ms": Figure("p90", "ms", "lower"),
    "latency_p99_ms": Figure("p99", "ms", "lower"),
    "memory_bytes": Figure("peak\nmemory", "bytes", "lower"),
    "device_memory_bytes": Figure("device\nmemory", "bytes", "lower"),
    # of the process
    "first_prediction_seconds": Figure("first\nanswer", "s", "lower"),
    "open_seconds": Figure("opening", "s", "lower"),
    # of the model in this runtime
    "size_bytes": Figure("size", "bytes", "lower"),
    "accuracy": Figure("test\naccuracy", "fraction", "higher"),
    "golden_difference": Figure("golden\ndifference", "probability", "lower"),
    # of training; latency is a step's
    "step_p50_ms": Figure("step\np50", "ms", "lower"),
    "step_p90_ms": Figure("step\np90", "ms", "lower"),
    "step_p99_ms": Figure("step\np99", "ms", "lower"),
    "epoch_seconds": Figure("epoch", "s", "lower"),
    "first_step_seconds": Figure("first\nstep", "s", "lower"),
    "energy_wh": Figure("energy a\nmillion", "Wh/million images", "lower"),
    "cost": Figure("cost a\nmillion", "1/million images", "lower"),
}


@dataclass(frozen=True)
class Subject:
    """What was measured: a model, or for training a network and data. Figures of two subjects are alike only where
    ``same_as`` says so.

    name          the run's name; for training the recipe's
    architecture  the network's name
    digest        of the weights (SHA-256) for a model; of the network, recipe and data for a training
    data          the dataset's name or path
    image         height × width of its pictures, such as ``32×32``
    parameters    how many numbers the network learns
    path          as it was named in the call
    """

    name: str
    architecture: str
    digest: str | None = None
    data: str | None = None
    image: str | None = None
    parameters: int | None = None
    path: str | None = None

    def same_as(self, other: Subject) -> bool:
        """Whether figures of the two are of the same work."""
        if self.digest and other.digest:
            return self.digest == other.digest
        return (self.name, self.architecture, self.image) == (other.name, other.architecture, other.image)


@dataclass(frozen=True)
class Configuration:
    """What is measured by one process: all axes but the batch size.

    subject    the name of a Subject
    runtime    a runtime (``onnxruntime``) or an engine (``torch``)
    device     as asked for: ``cpu``, ``cuda`` …
    precision  what it computes in: ``fp32``, ``bf16``, ``int8``
    format     of what is opened: ``bundle``, or an exported artifact's (``onnx-int8``); None for training
    threads    that compute; None is every core
    """

    subject: str
    runtime: str
    device: str
    precision: str
    format: str | None = None
    threads: int | None = None

    def __str__(self) -> str:
        threads = [f"{self.threads} thread{'' if self.threads == 1 else 's'}"] if self.threads else []
        exported = self.format not in (None, "bundle", "model.onnx")
        name = [f"{self.format} export", self.device] if exported else [self.runtime, self.device, self.precision]
        return " ".join([*map(str, name), *threads])


@dataclass(frozen=True)
class Trial:
    """What one process of a configuration measured. None is what is not known, or not there.

    status        done; refused: it can't be done here; failed: anything else, also a device that fell back
    ran_on        the device that really computed; ``device_label`` is its hardware's name, ``provider`` what of the
                  runtime computed (``CUDAExecutionProvider``)
    figures       of the process; ``by_batch``: of each batch size, by its number as text
    others_cores  cores that other programs used meanwhile, on average
    steal_share   share of the machine's processor time that its host gave to others
    """

    configuration: Configuration
    round: int
    status: Status
    why: str | None = None
    started: str | None = None
    seconds: float | None = None
    ran_on: str | None = None
    device_label: str | None = None
    provider: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    by_batch: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    others_cores: float | None = None
    steal_share: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """What ``n`` trials of a configuration came to for a batch size. ``why`` there are fewer than planned, or none;
    ``batch_size`` is None in a row that only says why."""

    configuration: Configuration
    batch_size: int | None
    status: Status
    why: str | None = None
    n: int = 0
    ran_on: str | None = None
    device_label: str | None = None
    provider: str | None = None
    figures: Mapping[str, Spread] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def speed(self) -> float:
        """Median images/s; 0 where it was not measured."""
        return self.median("images_per_second") or 0.0

    def median(self, name: str) -> float | None:
        """The figure's median; None where it was not measured."""
        found = self.figures.get(name)
        return found.median if found else None


@dataclass(frozen=True)
class Benchmark:
    """What ``tenfold.bench`` gives back and bench.json holds. ``hardware`` is as ``hardware.describe()`` has it;
    ``settings`` are plain JSON: batch sizes, rounds, seconds. ``path``: the folder, None where nothing was written."""

    kind: Kind
    subjects: Sequence[Subject]
    rows: Sequence[Row]
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    created: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    trials: Sequence[Trial] = ()
    status: Literal["finished", "interrupted", "running"] = "finished"
    path: Path | None = None

    @classmethod
    def of(
        cls,
        kind: Kind,
        subjects: Sequence[Subject],
        trials: Sequence[Trial],
        *,
        command: str,
        settings: Mapping[str, Any],
        notes: Sequence[str] = (),
        created: str | None = None,
        status: Literal["finished", "interrupted", "running"] = "finished",
        path: Path | None = None,
    ) -> Benchmark:
        """Of this machine, now, with the rows of ``trials``."""
        import tenfold
        from tenfold import hardware

        versions = {"tenfold": tenfold.__version__, **hardware.versions()}
        for trial in trials:
            versions |= trial.versions
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        made = rows(trials)
        return cls(
            kind, tuple(subjects), made, hardware.describe(), versions, command, created or now, settings,
            tuple(notes), tuple(trials), status, path,
        )  # fmt: skip

    @property
    def ok(self) -> bool:
        """Something was measured, and nothing failed."""
        return any(row.n for row in self.rows) and not any(row.status == "failed" for row in self.rows)

    @property
    def machine(self) -> str:
        """The hardware in words: what computed, the card before the processor."""
        cards = {row.device_label: None for row in self.rows if row.n and row.device_label and row.ran_on != "cpu"}
        cores = int(self.hardware.get("cores") or 0)
        cpu = f"{cores} core{'' if cores == 1 else 's'} of {self.hardware.get('cpu', 'an unknown processor')}"
        return "; ".join([*cards, cpu])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; without ``path``, because the file may be moved."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "path"}
        for name in ("subjects", "rows", "trials"):
            found[name] = [dataclasses.asdict(one) for one in found[name]]
        return {"format": FORMAT, "version": VERSION, **found}

    def to_json(self) -> str:
        """The text of bench.json."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, data: Any, where: str = "it") -> Benchmark:
        """Raises CallError, naming ``where``, for what is no benchmark's JSON."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT or data.get("kind") not in KINDS:
            raise CallError(f"{where} is not a benchmark of tenfold's.", "Give a bench.json that tenfold bench wrote.")
        try:
            return cls(
                **{
                    **_known(cls, data),
                    "subjects": tuple(Subject(**_known(Subject, one)) for one in data["subjects"]),
                    "rows": tuple(_row(one) for one in data["rows"]),
                    "trials": tuple(_trial(one) for one in data.get("trials", ())),
                    "path": None,
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CallError(f"{where} is damaged: {type(error).__name__}: {error}.") from None


def read(path: Path | str) -> Benchmark:
    """The benchmark in the file ``path``, or in bench.json of the folder ``path``. CallError in one line where there is
    none."""
    file = Path(path)
    file = file / "bench.json" if file.is_dir() else file
    try:
        if file.stat().st_size > MAX_BYTES:
            raise CallError(f"{file} is larger than a benchmark's JSON ({MAX_BYTES >> 20} MiB).")
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CallError(f"{file} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise CallError(f"{file} is not JSON.", "Give a bench.json that tenfold bench wrote.") from None
    return Benchmark.from_dict(data, str(file))


T = TypeVar("T")


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are fields of ``kind``."""
    names = {f.name for f in dataclasses.fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def _trial(data: Mapping[str, Any]) -> Trial:
    configuration = Configuration(**_known(Configuration, data["configuration"]))
    return Trial(**{**_known(Trial, data), "configuration": configuration})


def _row(data: Mapping[str, Any]) -> Row:
    configuration = Configuration(**_known(Configuration, data["configuration"]))
    figures = {name: Spread(**_known(Spread, one)) for name, one in data["figures"].items() if name in FIGURES}
    return Row(**{**_known(Row, data), "configuration": configuration, "figures": figures})


# ---- rows ------------------------------------------------------------------------------------------------------------


def rows(trials: Sequence[Trial]) -> tuple[Row, ...]:
    """For each configuration, in the order in which it first stands there, a row for each batch size, from the smallest
    on; one that has none that is done has a row that says why. A figure that not every trial has is not told.

    A configuration that was done before and then failed keeps its figures, and has the failure's status and reason.
    """
    found: list[Row] = []
    for configuration in dict.fromkeys(t.configuration for t in trials):
        own = [t for t in trials if t.configuration == configuration]
        done = [t for t in own if t.status == "done"]
        bad = next((t for t in own if t.status != "done"), None)
        last = done[-1] if done else own[-1]
        common: dict[str, Any] = {
            "configuration": configuration,
            "status": bad.status if bad else "done",
            "why": bad.why if bad else None,
            "ran_on": last.ran_on,
            "device_label": last.device_label,
            "provider": last.provider,
            "notes": tuple(dict.fromkeys(note for t in own for note in t.notes)),
        }
        sizes = sorted({int(size) for t in done for size in t.by_batch})
        found += [Row(batch_size=n, **_figures(done, str(n)), **common) for n in sizes]
        if not sizes:
            found.append(Row(batch_size=None, **common))
    return tuple(found)


def _figures(done: Sequence[Trial], size: str) -> dict[str, Any]:
    """``n`` and ``figures`` of the trials that measured a batch size; those of the process, of all."""
    measured = [t for t in done if size in t.by_batch]
    whole = {name: Spread.of(t.figures.get(name) for t in done) for name in FIGURES}
    once = {name: Spread.of([t.figures[name] for t in done if name in t.figures]) for name in ONCE}
    own = {name: Spread.of(t.by_batch[size].get(name) for t in measured) for name in FIGURES}
    together = {name: own[name] or whole[name] or once.get(name) for name in FIGURES}
    return {"n": len(measured), "figures": {name: spread for name, spread in together.items() if spread is not None}}


# Measured in the first round alone: they don't change from round to round.
ONCE = ("size_bytes", "accuracy", "golden_difference")
